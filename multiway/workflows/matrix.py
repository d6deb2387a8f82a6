"""`multiway matrix`: trained runs by tasks, each tuned on equal data and measured, in one table.

A cell of a task that a head is tuned for is a fine-tuning of one run (`multiway finetune`), on as many examples as all others.
Beside the runs stands a blind one, tuned with its pictures hidden: what the words alone are worth. A cell of a task that asks
for no head measures the run as it is. Cells are kept, as in `compare`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from multiway.abilities import LacksAbility
from multiway.config import ConfigError
from multiway.data.annotated.open import open_examples
from multiway.data.open import open_source, parse
from multiway.data.source import DataError
from multiway.engine.provenance import machine_name
from multiway.hub.load import load
from multiway.hub.start import weights_hash
from multiway.recipes.answer_writer import written
from multiway.recipes.finetune import headed
from multiway.tasks import TASKS, Result
from multiway.tasks.example_task import ExampleTask, annotation
from multiway.tasks.frozen import teach
from multiway.version import __version__
from multiway.workflows.arms import CellFailed, kept_cell, run_command, write_cell
from multiway.workflows.side_by_side import Cell, side_by_side

__all__ = ["BATCH", "SUMMED_UP", "matrix", "matrix_markdown"]

BATCH = 64
_BLIND = ", blind"

SUMMED_UP = {
    "retrieval": "mean/R@1",
    "fusion": "mean/R@1",
    "matching": "random/accuracy",
    "masked-words": "with_picture/all",
    "captioning": "with_picture/nats",
    "zeroshot": "accuracy/top-1",
    "knn": "accuracy/top-1[k=20]",
    "probe": "accuracy/top-1",
    "classification": "accuracy/top-1",
}
"""The metric that a column shows, of tasks on pictures with captions or classes; those on annotated data name their own (`best`)."""

_CLASSED = ("zeroshot", "knn", "probe", "classification")  # what needs pictures with classes


def matrix(
    runs: Sequence[str],
    out: Path,
    data: str,
    samples: int,
    tasks: Iterable[str] = (),
    blind: str = "",
    classes: str = "digits",
    seed: int = 0,
    jobs: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Fill the table.

    Args:
        runs: trained runs, which the table calls by the names of their folders.
        out: folder of the table, a folder in it for each cell.
        data: what all are tuned on and, at `@test`, measured on.
        samples: examples seen in tuning.
        tasks: columns; all that heads are tuned for by default.
        blind: which of the runs is tuned blind as well; the first by default.
        classes: pictures with classes, for tasks that need them.
        seed: of all runs.
        jobs: cells that are tuned at once.
        say: what is being done.

    Returns:
        `{"data", "samples", ..., "rows": [names], "tasks": [names], "cells": {"run/task": cell}}`; a failed cell is
        `{"failed": why}`.

    Raises:
        ConfigError: for an unknown task or run, or two runs of one name.
    """
    columns, able = list(tasks) or headed(), [name for name in TASKS if _best(name)]
    for task in columns:
        if task not in able:
            raise ConfigError(f"{task!r} is no column of a matrix; tasks that are: {', '.join(able)}")
    named = {Path(run).name: run for run in runs}
    if len(named) < len(runs):
        raise ConfigError(f"two of the runs have the same name: {', '.join(runs)}; give their folders different names")
    hidden = Path(blind).name if blind else next(iter(named), "")
    if hidden not in named:
        raise ConfigError(f"there is no run {hidden!r} to be tuned blind; given: {', '.join(named) or 'none'}")
    out.mkdir(parents=True, exist_ok=True)
    rows = {name: (run, False) for name, run in named.items()} | {hidden + _BLIND: (named[hidden], True)}
    table: dict[str, Any] = {
        "data": data, "classes": classes, "samples": samples, "seed": seed, "date": date.today().isoformat(), "machine": machine_name(),
        "threads": torch.get_num_threads(), "rows": list(rows), "tasks": columns, "cells": {},
    }  # fmt: skip
    threads = max(1, torch.get_num_threads() // jobs) if jobs > 1 else 0

    def begin(pool: Executor, name: str) -> Future[Cell]:
        say(name)
        row, task = name.split("/")
        run, without = rows[row]
        folder = out / f"{row.replace(', ', '-')}-{task}"
        on = classes if task in _CLASSED else data
        if task in tuned:
            return pool.submit(_tuned, run, folder, task, on, samples, without, seed, threads)
        return pool.submit(_measured, run, folder, task, on, threads)

    tuned = [*headed(), *written(), "classification"]
    # Of a run as it is nothing can be hidden.
    order = [f"{row}/{task}" for task in columns for row, (_, without) in rows.items() if task in tuned or not without]
    for name, found in side_by_side(order, {}, begin, jobs):
        if "failed" in found:
            say(found["failed"])
        table["cells"][name] = found
        (out / "matrix.json").write_text(json.dumps(table, indent=1))
        (out / "matrix.md").write_text(matrix_markdown(table))
    return table


def _tuned(
    run: str, folder: Path, task: str, data: str, samples: int, blind: bool, seed: int, threads: int
) -> dict[str, Any]:
    """One run tuned for one task and measured, or what was measured before, or why nothing could be."""
    if threads:
        torch.set_num_threads(threads)
    words = ["finetune", run, "--task", task, "--data", data, "--batch", str(BATCH), "--seed", str(seed)]
    words += ["--steps", str(max(1, round(samples / BATCH)))]
    words += ["--method.blind"] if blind else []
    key = _key(run, words)
    before = kept_cell(folder, key)
    if before is not None:
        return before
    try:
        # What it is measured on comes after; measuring on the way too would take as long again.
        run_command(*words, "--evaluate", "--out", str(folder), *(("--threads", str(threads)) if threads else ()))
    except CellFailed as error:
        return {"failed": str(error)}
    return _written(folder, key, task, _run(folder, task, data))


def _measured(run: str, folder: Path, task: str, data: str, threads: int) -> dict[str, Any]:
    """One run measured as it is, or what was measured before, or why it cannot be."""
    if threads:
        torch.set_num_threads(threads)
    key = _key(run, ["eval", run, "--task", task, "--data", data])
    before = kept_cell(folder, key)
    if before is not None:
        return before
    try:
        result = _run(run, task, data)
    except (LacksAbility, DataError) as error:
        return {"failed": f"{task}: {error}"}
    folder.mkdir(parents=True, exist_ok=True)
    return _written(folder, key, task, result)


def _key(run: str, words: Sequence[str]) -> str:
    asked = {"words": words, "weights": weights_hash(load(run).method.state_dict()), "version": __version__}
    return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=8).hexdigest()


def _run(run: str | Path, task: str, data: str) -> Result:
    """The task on the data's `@test`."""
    one, model = TASKS[task], load(run)
    if isinstance(one, ExampleTask):
        return one.run(model, open_examples(data, annotation(one), "test"))
    test = str(replace(parse(data), split="test"))
    return teach(one, test, lambda named: open_source(named)).run(model, open_source(test))


def _written(folder: Path, key: str, task: str, result: Result) -> dict[str, Any]:
    found = {"key": key, "task": task, "best": _best(task), "results": result.to_json()["metrics"]}
    write_cell(folder, found)
    return found


def _best(task: str) -> str:
    """The metric that sums a task up; empty for tasks that are no columns."""
    return SUMMED_UP.get(task) or str(getattr(TASKS[task], "best", ""))


def matrix_markdown(table: dict[str, Any]) -> str:
    """The table for people: 95 % intervals in brackets, a dash where a run could not be tuned for a task."""
    cells, tasks = table["cells"], table["tasks"]
    lines = [
        f"{table['samples']:,} examples of `{table['data']}`{_classes(table)} for each task, seed {table['seed']}; {table['machine']}, "
        f"{table['threads']} threads, {table['date']}.",
        "",
        "| % | " + " | ".join(f"{task}, {_best(task)}" for task in tasks) + " |",
        "|---" * (len(tasks) + 1) + "|",
    ]
    for row in table["rows"]:
        shown = [_shown(cells.get(f"{row}/{task}")) for task in tasks]
        lines.append(f"| {row} | " + " | ".join(shown) + " |")
    chances = [_chance(cells, table["rows"], task) for task in tasks]
    lines.append("| *chance* | " + " | ".join(chances) + " |")
    return "\n".join(lines) + "\n"


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if "failed" in cell:
        return "–"
    best, scale = cell["results"][cell["best"]], _scale(cell["best"])
    return " ".join((_figure(best["value"], scale), f"({_figure(best['low'], scale)}–{_figure(best['high'], scale)})"))


def _scale(metric: str) -> int:
    """Shares are shown in per cent, nats and CIDEr-D as they are."""
    return 1 if metric.endswith(("nats", "CIDEr-D")) else 100


def _figure(value: float, scale: int) -> str:
    return f"{value:.3f}" if scale == 1 else f"{scale * value:.1f}"


def _classes(table: dict[str, Any]) -> str:
    asked = [task for task in table["tasks"] if task in _CLASSED]
    return f" (`{table['classes']}` for {', '.join(asked)})" if asked else ""


def _chance(cells: dict[str, Cell], rows: Sequence[str], task: str) -> str:
    """The best constant's score; equal for all rows, as it is of the test set."""
    for row in rows:
        cell = cells.get(f"{row}/{task}", {})
        if "results" in cell and cell["results"][cell["best"]]["chance"] is not None:
            return _figure(cell["results"][cell["best"]]["chance"], _scale(cell["best"]))
    return ""
