"""Several runs on one page: curves over each other, what differs in their settings, metrics, and the same questions asked of each.

One file without links to anywhere. All are measured on the same rows of the same split, so that a row of the table differs by the
model alone; intervals are those of the test set, and say nothing of another seed.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multiway.config import ConfigError
from multiway.data.annotated.open import open_examples
from multiway.data.open import open_source, parse
from multiway.data.source import DataError, Source
from multiway.data.subset import Subset
from multiway.data.thumbnail import picture_uri
from multiway.engine.run import Run
from multiway.explain.kinds import KINDS
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.tasks import Result
from multiway.tasks.knn import Knn
from multiway.tasks.probe import LinearProbe
from multiway.tasks.retrieval import RetrievalDetails
from multiway.workflows.arms import measured
from multiway.workflows.curves import COLOURS, overlaid_curves
from multiway.workflows.encoded_once import EncodedOnce
from multiway.workflows.explain_kinds import caption_section
from multiway.workflows.explain_map import spread_rows
from multiway.workflows.explain_sections import Section
from multiway.workflows.fusion import spread
from multiway.workflows.pointing import pointing_game
from multiway.workflows.report import Query, held_out_splits, layout_of, query_of
from multiway.workflows.run_page import environment, summary_of
from multiway.workflows.runs_beside import differing, metric_lines, of_some_alone
from multiway.workflows.space import Space, measure_space

__all__ = ["Beside", "write_runs"]

_PAIRS = 500  # of which the shared space is measured


@dataclass
class _Seen:
    """One run, loaded and measured."""

    name: str
    run: Run
    model: Model
    results: dict[str, Result] = field(default_factory=dict)
    details: RetrievalDetails | None = None
    space: Space | None = None
    pointing: Result | None = None
    absent: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Beside:
    """How runs are laid side by side.

    Attributes:
        data: `name[:path][@split]` that all are measured on; by default the first run's first held-out split.
        rows: pictures in which is searched.
        queries: texts and pictures that are shown as each run answers them.
        pointing: data with boxes, on which each run's maps play the pointing game; empty for none.
        samples: expressions of it, at most.
        say: what is being done.
    """

    data: str = ""
    rows: int = 100
    queries: int = 4
    pointing: str = ""
    samples: int = 200
    say: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        if self.rows < 2 or self.queries < 1 or self.samples < 1:
            raise ConfigError(
                f"given rows {self.rows}, queries {self.queries} and samples {self.samples}; expected 2, 1 and 1 at least"
            )


def write_runs(folders: Sequence[Path], out: Path, asked: Beside | None = None) -> dict[str, Any]:
    """Measure runs on the same rows and write the page.

    Args:
        folders: of two runs at least.
        out: the page's file; its folder is made if it is missing.
        asked: how.

    Returns:
        The numbers behind it: `{"page", "data", "runs": {name: {"metrics": {task: ...}, "space": ..., "pointing": ...}}, "differing"}`.

    Raises:
        ConfigError: for fewer than two runs, or without data.
        DataError: if the data cannot be used.
    """
    asked = asked or Beside()
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError(f"given {', '.join(map(str, folders)) or 'no run'}; expected two different runs at least")
    opened = [Run.read(folder) for folder in folders]
    held = [asked.data] if asked.data else held_out_splits(opened[0].config)
    if not held:
        raise ConfigError(f"{folders[0]} has no held-out split to measure on; name data with --data")
    columns = layout_of(opened[0].config)
    source = open_source(held[0], columns.pop("images"), "test", columns["image_column"], columns["caption_column"])
    if not len(source):
        raise DataError(f"{source.name}@{source.split} has no rows to measure on; name another split with --data")
    small = Subset(source, asked.rows)
    seen = [_Seen(name, run, load(run.path)) for name, run in zip(_names(folders), opened, strict=True)]
    boxes = open_examples(asked.pointing, "grounding", "test") if asked.pointing else None
    for one in seen:
        asked.say(f"{one.name}: measuring on {source.name}@{source.split}")
        _measure(one, source, small, asked, held[0])
        if boxes is not None:
            asked.say(f"{one.name}: pointing game")
            _point(one, boxes, asked)
    lines = metric_lines([one.results for one in seen])
    models = [(one.name, one.model) for one in seen]
    differ = differing([one.run.config for one in seen])
    page = (
        environment()
        .get_template("runs.html.j2")
        .render(
            runs=[_facts(number, one) for number, one in enumerate(seen)],
            data=f"{source.name}@{source.split}",
            gallery=len(small),
            machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
            curves=overlaid_curves([(one.run.metrics(), one.run.config["settings"]["batch"]) for one in seen]),
            differing=[line for line in differ if not of_some_alone(line[1])],
            of_some=[line for line in differ if of_some_alone(line[1])],
            lines=lines,
            texts=_texts(seen, small, asked.queries),
            pictures=_pictures(seen, small, asked.queries),
            spaces=_spaces(seen),
            explained=[each for each in (_pointing(seen), caption_section(models, small)) if each is not None],
            absent=[f"{one.name}: {why}" for one in seen for why in one.absent],
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return {
        "page": str(out),
        "data": f"{source.name}@{source.split}",
        "runs": {one.name: _json(one) for one in seen},
        "differing": {name: list(values) for name, values in differ},
    }


def _names(folders: Sequence[Path]) -> list[str]:
    """Of the folders; with their parents' where two are called the same."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return ["/".join(folder.resolve().parts[-2:]) for folder in folders]


def _measure(one: _Seen, source: Source, small: Source, asked: Beside, data: str) -> None:
    able = one.model.abilities()
    if "encode_text" in able:
        one.results = measured(one.model, source, asked.rows)
        found = next((one.results[task].details for task in ("retrieval", "fusion") if task in one.results), None)
        one.details = found if isinstance(found, RetrievalDetails) else getattr(found, "fused", None)
        if one.details is None:
            one.absent.append("searches: it neither compares pictures with texts nor matches them")
        if "compare" in able:
            one.space = _space(one.model, source)
        return
    one.absent.append("searches and the shared space: it reads no texts")
    once = EncodedOnce(one.model, source)
    for task in (Knn(), LinearProbe()):
        try:
            train = open_source(str(replace(parse(data), split=task.train)))
            one.results[task.name] = once.run(once.taught(task, train))
        except DataError as error:  # without labels, or with too few: the other figures are still wanted
            one.absent.append(f"{task.name}: {error}")


def _space(model: Model, source: Source) -> Space | None:
    rows = spread_rows(source, _PAIRS)
    captions = [next(iter(source.row(row).captions), "") for row in rows]
    texts = model.encode_text(captions) if all(captions) else None
    if texts is None or not texts.has_embedding or len(rows) < 8:
        return None
    return measure_space(model.encode_image([source.image(row) for row in rows]).embedding, texts.embedding)


def _point(one: _Seen, boxes: Any, asked: Beside) -> None:
    if "encode_text" not in one.model.abilities():
        one.absent.append("pointing game: it reads no texts")
        return
    one.pointing = pointing_game(one.model, boxes, None, asked.samples)


def _facts(number: int, one: _Seen) -> dict[str, Any]:
    config = one.run.config
    return {
        "name": one.name,
        "colour": COLOURS[number % len(COLOURS)],
        "recipe": f"{config['recipe']} {config['preset']}",
        "data": config["data"],
        "parameters": one.model.describe()["parameters"] / 1e6,
        "summary": summary_of(one.run.metrics(), one.run.timings(), config),
    }


def _texts(seen: Sequence[_Seen], small: Source, count: int) -> list[tuple[str, list[tuple[str, Query]]]]:
    """The same words asked of each run: the words, and by run what it found. All galleries are the same rows."""
    able = [one for one in seen if one.details is not None]
    if not able or able[0].details is None:
        return []
    pictures: dict[int, str] = {}
    asked = spread(list(range(len(able[0].details.gallery.texts))), count)
    found = []
    for number in asked:
        answers = [
            (one.name, query_of(small, one.details, number, pictures)) for one in able if one.details is not None
        ]
        found.append((answers[0][1].words, answers))
    return found


def _pictures(
    seen: Sequence[_Seen], small: Source, count: int
) -> list[tuple[str, list[tuple[str, float, list[tuple[str, bool]]]]]]:
    """The same pictures asked of each run: the picture, and by run the rank of a right caption and the nearest three."""
    able = [one for one in seen if one.details is not None]
    if not able or able[0].details is None:
        return []
    gallery = able[0].details.gallery
    found = []
    for number in spread(list(range(len(gallery.rows))), count):
        answers = []
        right = set(gallery.texts_of[number].tolist())
        for one in able:
            assert one.details is not None
            ranking = one.details.text_retrieval
            nearest = [(gallery.texts[int(place)], int(place) in right) for place in ranking.top[number][:3]]
            answers.append((one.name, float(ranking.rank[number]), nearest))
        found.append((picture_uri(small.image(gallery.rows[number]), 120), answers))
    return found


def _spaces(seen: Sequence[_Seen]) -> list[tuple[str, ...]]:
    """A head and a line for each quantity; a column for each run that has a space, and one for chance where it is the same for all."""
    able = [(one.name, one.space.table()) for one in seen if one.space is not None]
    if not able:
        return []
    rows = [("", *(name for name, _ in able), "by chance")]
    for number, line in enumerate(able[0][1][1:], start=1):
        chances = tuple(dict.fromkeys(table[number][2] for _, table in able))
        rows.append((line[0], *(table[number][1] for _, table in able), " · ".join(chances)))
    return rows


def _pointing(seen: Sequence[_Seen]) -> Section | None:
    able = [one for one in seen if one.pointing is not None]
    if not able:
        return None
    names = ["random", "centre", *KINDS]
    rows = [("map", *(one.name for one in able))]
    for name in names:
        own = [one.pointing.metrics.get(name) if one.pointing else None for one in able]
        if any(own):
            rows.append((name, *("–" if m is None else f"{m.value:.1%} ({m.low:.1%} – {m.high:.1%})" for m in own)))
    first = able[0].pointing
    assert first is not None
    return Section(
        "Which map to believe",
        f"The pointing game (arXiv 1608.00507) on {first.metrics['random'].n} expressions of {first.data}@{first.split}: how often a map's "
        "hottest point lies in the box of what the words mean, with 95 % intervals. Attention of a picture alone and its rollout do "
        "not know the words.",
        table=tuple(rows),
    )


def _json(one: _Seen) -> dict[str, Any]:
    return {
        "folder": str(one.run.path),
        "metrics": {task: result.to_json()["metrics"] for task, result in one.results.items()},
        "space": None if one.space is None else asdict(one.space),
        "pointing": None if one.pointing is None else one.pointing.to_json()["metrics"],
        "absent": one.absent,
        "last_loss": next((line["loss"] for line in reversed(one.run.metrics()) if np.isfinite(line["loss"])), None),
    }
