"""`report.html` of a tuned run: what it scores on its task, examples of right and wrong, and what it has kept of before."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiway.data.annotated.open import open_examples, parse_examples
from multiway.data.examples import HasNotes
from multiway.data.open import open_source, parse
from multiway.data.source import DataError, Source
from multiway.data.thumbnail import picture_uri
from multiway.engine.run import Run
from multiway.hub.file import WeightsError
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.start import weights_hash
from multiway.tasks import TASKS, Result
from multiway.tasks.example_task import ExampleTask, annotation
from multiway.workflows.kept import Kept, kept
from multiway.workflows.run_page import write_page
from multiway.workflows.shown_examples import ShownExample, shown_examples

__all__ = ["is_tuned", "write_tuned_report"]

_SPLITS = ("val", "test")


@dataclass(frozen=True)
class _Tuned:
    """One held-out split of the task.

    Attributes:
        result: of the task.
        right, wrong: some examples.
        notes: what must be said beside the figures.
    """

    result: Result
    right: list[ShownExample] = field(default_factory=list)
    wrong: list[ShownExample] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def is_tuned(config: dict[str, Any]) -> bool:
    """Whether a run's config.json is one of `multiway finetune`: a head for a task, put on another run."""
    return "task" in config and config["task"] in TASKS


def write_tuned_report(folder: Path, beside: Sequence[str] = ()) -> Path:
    """Measure a tuned run on the held-out splits of its task, and on what the run before could do, and write `report.html`.

    Args:
        folder: of the run.
        beside: pictures with captions, `name[:path][@split]`, on which both runs are measured; by default the run's own data
            where they have captions, as scenes do.

    Returns:
        The report's path.

    Raises:
        DataError: if data named by `beside` cannot be opened, or no split of the task's data can.
    """
    run = Run.read(folder)
    model, config = load(folder), run.config
    measured = [_measured(model, config, split) for split in _held_out(config)]
    sources = [open_source(each, default_split="test") for each in beside] or _own_pairs(config)
    compared, why_not = _kept(model, config, sources)
    return write_page(
        run,
        "tuned.html.j2",
        model,
        _commands(folder, config, measured),
        tuned=measured,
        kept=compared,
        why_not=why_not,
    )


def _held_out(config: dict[str, Any]) -> list[str]:
    """Specifications of the splits that are measured: those of val and test that the data have, and that is not trained on."""
    parsed = (parse_examples if _annotated(config) else parse)(config["data"])
    data, trained = config["data"].removesuffix(f"@{parsed.split}"), parsed.split or "train"
    return [f"{data}@{split}" for split in _SPLITS if split != trained]


def _annotated(config: dict[str, Any]) -> bool:
    return isinstance(TASKS[config["task"]], ExampleTask)


def _measured(model: Model, config: dict[str, Any], spec: str) -> _Tuned:
    """The task on one split, with some of its examples where it has any."""
    task = TASKS[config["task"]]
    if not isinstance(task, ExampleTask):
        return _Tuned(task.run(model, open_source(spec, **_layout(config))))
    examples = open_examples(spec, annotation(task), images=config["images"])
    result = task.run(model, examples)
    right, wrong = shown_examples(examples, result.details, picture_uri)
    notes = examples.notes if isinstance(examples, HasNotes) else ()
    if examples.rejected:
        notes = (*notes, f"{len(examples.rejected):,} rows were left out, the first: {examples.rejected[0]}")
    return _Tuned(result, right, wrong, notes)


def _layout(config: dict[str, Any]) -> dict[str, Any]:
    columns = {column: config[column] or None for column in ("image_column", "caption_column")}
    return {"images": config["images"], **columns}


def _own_pairs(config: dict[str, Any]) -> list[Source]:
    """The run's own data as pictures with captions; none where they are annotations alone."""
    try:
        data = config["data"].removesuffix(
            "@" + ((parse_examples if _annotated(config) else parse)(config["data"]).split or "")
        )
        return [open_source(f"{data}@test", **_layout(config))]
    except DataError:
        return []


def _kept(model: Model, config: dict[str, Any], sources: Sequence[Source]) -> tuple[list[Kept], str]:
    """Figures before and after, or why there are none."""
    if config["method"].get("blind"):
        return [], "It was tuned with its pictures hidden, and can do nothing with them."
    if not sources:
        return [], (
            f"{config['data']} has no captions to search by. Name pictures with captions on which the run and its beginning are "
            "both measured: multiway report RUN --beside captions.jsonl@test"
        )
    try:
        before = load(config["init"])
    except WeightsError as error:
        return [], f"The run that it began from can no longer be read: {error}"
    if weights_hash(before.method.starting.state_dict()) != config.get("init_hash"):
        return [], f"{config['init']} holds other weights by now than those that it began from."
    found = [each for source in sources for each in kept(before, model, source)]
    return (
        found,
        "" if found else "There is nothing that both it and the run before can do with these data without a head.",
    )


def _commands(folder: Path, config: dict[str, Any], measured: Sequence[_Tuned]) -> list[tuple[str, str]]:
    """What to try next, with this run's own names in it, quoted for the shell."""
    run, data, start, task = (
        shlex.quote(str(each)) for each in (folder, config["data"], config["init"], config["task"])
    )
    last = f"{measured[-1].result.data}@{measured[-1].result.split}" if measured else config["data"]
    commands = [(f"multiway eval {run} --task {task} --data {shlex.quote(last)}", "measure it, also on other data")]
    if hasattr(TASKS[config["task"]], "submission"):
        commands += [
            (f"{commands[0][0]} --predictions predictions.json", "write what it predicts in the benchmark's form")
        ]
    if "blind" in config["method"] and not config["method"]["blind"]:
        words = f"multiway finetune {start} --task {task} --data {data} --method.blind --out runs/blind"
        commands += [(words, "the baseline that has the words alone")]
    commands += [
        (
            f"multiway average {start} {run} --alpha 0.5 --out runs/between.safetensors",
            "go half of the way back: forget less",
        ),
        (f"multiway doctor {run}", "what ails this run, if anything does"),
    ]
    return commands
