"""What the web page shows of a run: held-out pictures or questions to try it on, what is searched, and its curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multiway.cli.search import gallery
from multiway.data.annotated.open import open_examples, parse_examples
from multiway.data.open import ALL, open_source, parse
from multiway.data.source import BadRow, DataError, Source
from multiway.data.subset import Subset
from multiway.engine.run import Run
from multiway.hub.model import Model
from multiway.serve.find import Finder
from multiway.serve.index import VectorIndex, open_index
from multiway.serve.limits import Limits
from multiway.serve.search import PictureIndex
from multiway.serve.subject import Sample, Subject
from multiway.tasks import TASKS
from multiway.tasks.example_task import ExampleTask, annotation
from multiway.workflows.curves import health_curves, loss_curves
from multiway.workflows.explain_map import spread_rows
from multiway.workflows.fusion import spread
from multiway.workflows.report import held_out_splits
from multiway.workflows.tuned_report import is_tuned

__all__ = ["Shown", "searched", "subject_of"]

_SAMPLES = 8
_LABELS = 10
_GALLERY = 5_000
"""Pictures that are encoded when the page starts, at most, where nobody says which."""


@dataclass(frozen=True)
class Shown:
    """What is shown beside the model; by default what the run itself names.

    Attributes:
        index: folder or address of an index that is searched.
        data: held-out pictures, `name[:path][@split]`.
        images, image_column, caption_column: of a caption file.
    """

    index: str = ""
    data: str = ""
    images: str = ""
    image_column: str = ""
    caption_column: str = ""

    @property
    def columns(self) -> tuple[str, str]:
        """Of pictures and of captions."""
        return self.image_column, self.caption_column


def subject_of(
    place: str,
    model: Model,
    shown: Shown = Shown(),
    *,
    limits: Limits,
    index: PictureIndex | Finder | None,
    where: str,
    compute: Callable[[Callable[[], Any]], Any],
) -> Subject:
    """What the page shows of a model.

    Args:
        place: run folder, weights file or `hf:` name that it was loaded from.
        model: loaded.
        shown: what is shown beside it.
        limits: of the server.
        index: that the server searches.
        where: what `searched` called it.
        compute: runs what needs the model.

    Raises:
        DataError: if data that were named cannot be opened.
    """
    run = _run(place)
    name = Path(place.removeprefix("hf:")).resolve().name
    found = Subject(
        model, name, limits, index=index, run=run, plots=_plots if run is not None else None, compute=compute
    )
    found.place = f"the {len(index):,} pictures of {where}" if index is not None else ""
    config = run.config if run is not None else {}
    questions = _questions(config, shown) if config and is_tuned(config) else []
    source = None if questions else _pictures(config, shown)
    found.samples = questions or ([] if source is None else _samples(source))
    if source is not None:
        found.template = source.templates[0] if source.templates else "{}"
        found.labels = [source.classes[each] for each in spread(list(range(len(source.classes))), _LABELS)]
    found.labels = found.labels or list(dict.fromkeys(sample.caption for sample in found.samples if sample.caption))
    return found


def searched(place: str, model: Model, shown: Shown = Shown()) -> tuple[VectorIndex | PictureIndex | None, str]:
    """What is searched, and its name: the index that is named, or the pictures that are; else the run's own.

    Of a run all pictures are searched, those that it was trained on too, if there are not too many to wait for; else the held-out
    ones, or some of them, evenly spread: a generated world has millions.

    None for a model that does not compare, for a run that was tuned for a task, and for weights of which no data are named.

    Raises:
        DataError: if data that were named cannot be opened.
        IndexFault: if the index is none.
    """
    if shown.index:
        return open_index(shown.index), shown.index
    run = _run(place)
    if not {"encode_image", "encode_text", "compare"} <= set(model.abilities()):
        return None, ""
    if not shown.data and (run is None or is_tuned(run.config)):
        return None, ""
    if shown.data or run is None:
        return gallery(place, model, shown.data.partition("@")[0], shown.images, shown.columns)
    config = run.config
    columns = config["image_column"] or None, config["caption_column"] or None
    source = open_source(str(replace(parse(config["data"]), split="")), config["images"], ALL, *columns)
    if len(source) <= _GALLERY:
        return gallery(place, model)
    held = _pictures(config, shown)
    if held is None:
        return None, ""
    # What is kept beside a run is named after the whole of a source, so that of a part nothing is kept.
    some = held if len(held) <= _GALLERY else Subset(held, _GALLERY)
    return PictureIndex.build(model, some, None), f"{held.name}@{held.split}"


def _run(place: str) -> Run | None:
    return Run.read(Path(place)) if Path(place).is_dir() else None


def _pictures(config: dict[str, Any], shown: Shown) -> Source | None:
    """Held-out pictures with captions: those that were named, or the first split that the run was not trained on."""
    image, caption = (column or None for column in shown.columns)
    if shown.data:
        return open_source(shown.data, shown.images, "test", image, caption)
    held = [] if not config or is_tuned(config) else held_out_splits(config)
    if not held and config and is_tuned(config) and not isinstance(TASKS[config["task"]], ExampleTask):
        held = [config["data"].partition("@")[0] + "@test"]
    if not held:
        return None
    columns = config["image_column"] or None, config["caption_column"] or None
    return open_source(held[0], config["images"], "test", *columns)


def _samples(source: Source) -> list[Sample]:
    """Some of its pictures, evenly spread; a damaged one is left out."""
    found = []
    for row in spread_rows(source, _SAMPLES):
        try:
            words = source.row(row)
            found.append(Sample(words.key, source.image(row), words.captions[0]))
        except BadRow:
            continue
    return found


def _questions(config: dict[str, Any], shown: Shown) -> list[Sample]:
    """Held-out examples of what a run was tuned for; none where it was tuned on pictures alone, or they are gone."""
    task = TASKS[config["task"]]
    if not isinstance(task, ExampleTask):
        return []
    spec = shown.data or config["data"].removesuffix("@" + (parse_examples(config["data"]).split or "")) + "@val"
    try:
        examples = open_examples(spec, annotation(task), images=shown.images or config["images"])
        some = [examples.example(row) for row in spread(list(range(min(len(examples), 10_000))), _SAMPLES)]
        return [
            Sample(
                each.key,
                examples.pictures.image(each.pictures[0]),
                **({"question": each.text} if task.kind == "asked" else {"caption": each.text}),
            )
            for each in some
        ]
    except (DataError, BadRow):
        if shown.data:
            raise
        return []


def _plots(metrics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (
            "Losses beside their chance values (dashed), and how often training batches were right.",
            loss_curves(metrics),
        ),
        ("Learning rate, gradient norm, effective rank of the embeddings.", health_curves(metrics)),
    ]
