"""`multiway compare`: every method trained on equal data, in one table.

The table grows cell by cell: each is written as soon as it is there, finished ones are kept, and a table that was interrupted
goes on where it was. An arm that fails is a row that says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from multiway.config import ConfigError
from multiway.engine.provenance import machine_name
from multiway.workflows.arms import Arm, CellFailed, arm_recipe, cell
from multiway.workflows.side_by_side import Cell, side_by_side
from multiway.workflows.step_times import step_times

__all__ = ["ARMS", "COLUMNS", "Column", "compare", "markdown"]

# As the recipes of scenes have it (`recipes/world.py`): `clip` is made for emoji, and teaches `vqkd` here.
_WHITE = ("--view.mean", "1", "1", "1", "--view.std", "0.5", "0.5", "0.5")

# In the order of the table: blind models, dual encoders, fused ones, those that write.
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("bert (blind)", "bert"),
        Arm("gpt (blind)", "gpt"),
        Arm("clip", "clip", ("--method.image.stem", "conv", *_WHITE)),
        Arm("siglip", "siglip"),
        Arm("filip", "filip"),
        Arm("vilt", "vilt"),
        Arm("meter", "meter"),
        Arm("albef", "albef"),
        Arm("vlmo", "vlmo"),
        Arm("blip", "blip"),
        Arm("coca", "coca"),
        Arm("simvlm", "simvlm"),
        Arm("vqkd", "vqkd", needs=(("--teacher", "clip"),)),
        Arm("beit3", "beit3", needs=(("--codes", "vqkd"),)),
        Arm("beit3, then contrast", "beit3-retrieval", needs=(("--init", "beit3"),), share=0.5),
        Arm("beit3, then captions", "beit3-captioning", needs=(("--init", "beit3"),), share=0.5),
    )
}


@dataclass(frozen=True)
class Column:
    """A column of the table: its title, a short one for terminals, and a cell's text."""

    title: str
    short: str
    show: Callable[[dict[str, Any]], str]


def _share(task: str, metric: str) -> Callable[[dict[str, Any]], str]:
    def show(found: dict[str, Any]) -> str:
        value = found["results"].get(task, {}).get(metric)
        return (
            "" if value is None else f"{100 * value['value']:.1f} ({100 * value['low']:.1f}–{100 * value['high']:.1f})"
        )

    return show


def _nats(task: str, metric: str) -> Callable[[dict[str, Any]], str]:
    def show(found: dict[str, Any]) -> str:
        value = found["results"].get(task, {}).get(metric)
        return "" if value is None else f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})"

    return show


def _either(*shows: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    return lambda found: next((text for text in (show(found) for show in shows) if text), "")


# What the model sees of a word beside its picture; the blind one has no picture to see.
_WORD = "masked-words"
COLUMNS: tuple[Column, ...] = (
    Column(
        "picture → text R@1 %",
        "i→t",
        _either(_share("retrieval", "text_retrieval/R@1"), _share("fusion", "text_retrieval/R@1")),
    ),
    Column(
        "text → picture R@1 %",
        "t→i",
        _either(_share("retrieval", "image_retrieval/R@1"), _share("fusion", "image_retrieval/R@1")),
    ),
    Column("re-ranked mean R@1 %", "re-ranked", _share("rerank", "mean/R@1")),
    Column("matching, random %", "match", _share("matching", "random/accuracy")),
    Column("matching, hard %", "hard", _share("matching", "hard/accuracy")),
    Column(
        "masked colour %",
        "colour",
        _either(_share(_WORD, "with_picture/colour"), _share(_WORD, "without_picture/colour")),
    ),
    Column(
        "masked shape %", "shape", _either(_share(_WORD, "with_picture/shape"), _share(_WORD, "without_picture/shape"))
    ),
    Column(
        "caption nats/token",
        "nats",
        _either(_nats("captioning", "with_picture/nats"), _nats("captioning", "without_picture/nats")),
    ),
    Column("with another picture", "other", _nats("captioning", "other_picture/nats")),
    Column("ms/pair", "ms", lambda found: f"{found['ms']:.1f}" if found.get("ms") else ""),
    Column("peak MiB", "MiB", lambda found: "" if found["peak_mib"] is None else f"{found['peak_mib']:,.0f}"),
    Column("GFLOP/pair", "GFLOP", lambda found: f"{found['gflops_per_pair']:.2f}"),
    Column("M parameters", "M", lambda found: f"{found['parameters'] / 1e6:.2f}"),
    Column("samples", "samples", lambda found: f"{found['samples']:,}"),
)


def compare(
    out: Path,
    data: str,
    samples: int,
    names: Iterable[str] = (),
    seed: int = 0,
    gallery: int = 100,
    jobs: int = 1,
    rounds: int = 7,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Fill the table.

    Args:
        out: folder of the table, a folder in it for each arm.
        data: what all train on and, at `@test`, are measured on.
        samples: seen by each in training.
        names: of the arms; all by default. What they need is trained as well, and shown.
        seed: of all runs.
        gallery: pictures among which is searched.
        jobs: cells that are trained at once, the processors shared out among them. Steps are timed when all are done.
        rounds: of timing steps; 0 leaves the times out.
        say: what is being done.

    Returns:
        `{"data", "samples", ..., "cells": {name: cell}}`, as it stands in `compare.json`; a failed cell is `{"failed": why}`.

    Raises:
        ConfigError: for an unknown arm, or no jobs.
    """
    wanted = list(names) or list(ARMS)
    for name in wanted:
        if name not in ARMS:
            raise ConfigError(f"there is no arm {name!r} to compare; there are: {', '.join(ARMS)}")
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}; at least one cell has to be trained at a time")
    order = [name for name in ARMS if name in _with_needs(wanted)]
    out.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {
        "data": data, "samples": samples, "seed": seed, "gallery": gallery,
        "date": date.today().isoformat(), "machine": machine_name(), "threads": torch.get_num_threads(), "cells": {},
    }  # fmt: skip

    threads = max(1, torch.get_num_threads() // jobs) if jobs > 1 else 0

    def begin(pool: Executor, name: str) -> Future[Cell]:
        say(f"{name}: {_folder(out, name)}")
        others = {need: _folder(out, need) for _, need in ARMS[name].needs}
        return pool.submit(_cell, ARMS[name], _folder(out, name), data, samples, seed, gallery, others, threads)

    needs = {name: [need for _, need in ARMS[name].needs] for name in order}
    for name, found in side_by_side(order, needs, begin, jobs):
        if "failed" in found:
            say(found["failed"])
        table["cells"][name] = found
        table["cells"] = {each: table["cells"][each] for each in order if each in table["cells"]}
        _write(out, table)
    if rounds:
        _time(out, table, data, samples, seed, rounds, say)
        _write(out, table)
    return table


def _cell(
    arm: Arm, folder: Path, data: str, samples: int, seed: int, gallery: int, others: dict[str, Path], threads: int
) -> Cell:
    """A cell, or why there is none."""
    if threads:
        torch.set_num_threads(threads)
    try:
        return cell(arm, folder, data, samples, seed, gallery, others, threads)
    except CellFailed as error:
        return {"failed": str(error)}


def _time(
    out: Path, table: dict[str, Any], data: str, samples: int, seed: int, rounds: int, say: Callable[[str], None]
) -> None:
    """Every arm's time of a step into its cell; times that are there are kept if they are of the same cells and machine."""
    cells = {name: found for name, found in table["cells"].items() if "failed" not in found}
    of = {"cells": {name: found["key"] for name, found in cells.items()}, "rounds": rounds}
    of |= {"machine": table["machine"], "threads": table["threads"]}
    kept = out / "times.json"
    before = json.loads(kept.read_text()) if kept.is_file() else {}
    if before.get("of") != of:
        recipes = {}
        for name in cells:
            others = {need: _folder(out, need) for _, need in ARMS[name].needs}
            recipes[name] = arm_recipe(ARMS[name], _folder(out, name), data, samples, seed, others)[0].stages()[-1][1]
        before = {"of": of, "ms": step_times(recipes, rounds, say)}
        kept.write_text(json.dumps(before, indent=1))
    for name, found in cells.items():
        found["ms"] = before["ms"][name]


def _write(out: Path, table: dict[str, Any]) -> None:
    (out / "compare.json").write_text(json.dumps(table, indent=1))
    (out / "compare.md").write_text(markdown(table))


def markdown(table: dict[str, Any]) -> str:
    """The table for people: a row for each arm, 95 % intervals in brackets, empty where a model cannot do a task."""
    lines = [
        f"{table['samples']:,} samples of `{table['data']}` each, seed {table['seed']}; searched among {table['gallery']} "
        f"pictures of `@test`; {table['machine']}, {table['threads']} threads, {table['date']}.",
        "",
        "| | " + " | ".join(column.title for column in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name, found in table["cells"].items():
        if "failed" in found:
            why = found["failed"].strip().splitlines()[-1]
            lines.append(f"| {name} | failed: {why} " + "| " * (len(COLUMNS) - 1) + "|")
        else:
            lines.append(f"| {name} | " + " | ".join(column.show(found) for column in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def _with_needs(names: Iterable[str]) -> set[str]:
    found = set(names)
    while missing := {need for name in found for _, need in ARMS[name].needs} - found:
        found |= missing
    return found


def _folder(out: Path, name: str) -> Path:
    return out / "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").replace("--", "-")
