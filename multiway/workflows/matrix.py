"""`multiway matrix`: trained runs by tasks, each tuned on equal data and measured, in one table.

Every cell is a fine-tuning of one run for one task (`multiway finetune`), on as many examples as all others. Beside the runs stands
a blind one, tuned with its pictures hidden: what the words alone are worth. Cells are kept, as in `compare`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from datetime import date
from pathlib import Path
from typing import Any

import torch

from multiway.config import ConfigError
from multiway.data.annotated.open import open_examples
from multiway.engine.provenance import machine_name
from multiway.hub.load import load
from multiway.hub.start import weights_hash
from multiway.recipes.finetune import headed
from multiway.tasks import TASKS
from multiway.tasks.example_task import ExampleTask
from multiway.version import __version__
from multiway.workflows.arms import CellFailed, kept_cell, run_command, write_cell
from multiway.workflows.side_by_side import Cell, side_by_side

__all__ = ["BATCH", "matrix", "matrix_markdown"]

BATCH = 64
_BLIND = ", blind"


def matrix(
    runs: Sequence[str],
    out: Path,
    data: str,
    samples: int,
    tasks: Iterable[str] = (),
    blind: str = "",
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
        seed: of all runs.
        jobs: cells that are tuned at once.
        say: what is being done.

    Returns:
        `{"data", "samples", ..., "rows": [names], "tasks": [names], "cells": {"run/task": cell}}`; a failed cell is
        `{"failed": why}`.

    Raises:
        ConfigError: for an unknown task or run, or two runs of one name.
    """
    columns = list(tasks) or headed()
    for task in columns:
        if task not in headed():
            raise ConfigError(f"no head is tuned for {task!r}; tasks that have one: {', '.join(headed())}")
    named = {Path(run).name: run for run in runs}
    if len(named) < len(runs):
        raise ConfigError(f"two of the runs have the same name: {', '.join(runs)}; give their folders different names")
    hidden = Path(blind).name if blind else next(iter(named), "")
    if hidden not in named:
        raise ConfigError(f"there is no run {hidden!r} to be tuned blind; given: {', '.join(named) or 'none'}")
    out.mkdir(parents=True, exist_ok=True)
    rows = {name: (run, False) for name, run in named.items()} | {hidden + _BLIND: (named[hidden], True)}
    table: dict[str, Any] = {
        "data": data, "samples": samples, "seed": seed, "date": date.today().isoformat(), "machine": machine_name(),
        "threads": torch.get_num_threads(), "rows": list(rows), "tasks": columns, "cells": {},
    }  # fmt: skip
    threads = max(1, torch.get_num_threads() // jobs) if jobs > 1 else 0

    def begin(pool: Executor, name: str) -> Future[Cell]:
        say(name)
        row, task = name.split("/")
        run, without = rows[row]
        folder = out / f"{row.replace(', ', '-')}-{task}"
        return pool.submit(_cell, run, folder, task, data, samples, without, seed, threads)

    order = [f"{row}/{task}" for task in columns for row in rows]
    for name, found in side_by_side(order, {}, begin, jobs):
        if "failed" in found:
            say(found["failed"])
        table["cells"][name] = found
        (out / "matrix.json").write_text(json.dumps(table, indent=1))
        (out / "matrix.md").write_text(matrix_markdown(table))
    return table


def _cell(
    run: str, folder: Path, task: str, data: str, samples: int, blind: bool, seed: int, threads: int
) -> dict[str, Any]:
    """One run tuned for one task and measured, or what was measured before, or why nothing could be."""
    if threads:
        torch.set_num_threads(threads)
    words = ["finetune", run, "--task", task, "--data", data, "--batch", str(BATCH), "--seed", str(seed)]
    words += ["--steps", str(max(1, round(samples / BATCH)))]
    words += ["--method.blind"] if blind else []
    asked = {"words": words, "weights": weights_hash(load(run).method.state_dict()), "version": __version__}
    key = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=8).hexdigest()
    before = kept_cell(folder, key)
    if before is not None:
        return before
    try:
        run_command(*words, "--out", str(folder), *(("--threads", str(threads)) if threads else ()))
    except CellFailed as error:
        return {"failed": str(error)}
    one = TASKS[task]
    assert isinstance(one, ExampleTask)
    result = one.run(load(folder), open_examples(data, task, "test"))
    found = {"key": key, "task": task, "best": one.best, "results": result.to_json()["metrics"]}
    write_cell(folder, found)
    return found


def matrix_markdown(table: dict[str, Any]) -> str:
    """The table for people: 95 % intervals in brackets, a dash where a run could not be tuned for a task."""
    cells, tasks = table["cells"], table["tasks"]
    lines = [
        f"{table['samples']:,} examples of `{table['data']}` for each task, seed {table['seed']}; {table['machine']}, "
        f"{table['threads']} threads, {table['date']}.",
        "",
        "| % | " + " | ".join(f"{task}, {TASKS[task].best}" for task in tasks) + " |",  # type: ignore[attr-defined]
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
    best = cell["results"][cell["best"]]
    return f"{100 * best['value']:.1f} ({100 * best['low']:.1f}–{100 * best['high']:.1f})"


def _chance(cells: dict[str, Cell], rows: Sequence[str], task: str) -> str:
    """The best constant's score; equal for all rows, as it is of the test set."""
    for row in rows:
        cell = cells.get(f"{row}/{task}", {})
        if "results" in cell and cell["results"][cell["best"]]["chance"] is not None:
            return f"{100 * cell['results'][cell['best']]['chance']:.1f}"
    return ""
