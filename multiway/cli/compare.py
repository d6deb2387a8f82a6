"""`multiway compare --data scenes --samples 25600`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from multiway.cli.output import print_json
from multiway.data.spec import parse
from multiway.recipes.world import WORLD
from multiway.workflows.compare import COLUMNS, compare

__all__ = ["Compare", "run"]


@dataclass(frozen=True)
class Compare:
    """Train every method on equal data and fill one table; finished cells are kept.

    Attributes:
        data: what all train on; they are measured on its `@test`.
        samples: seen by each method in training.
        methods: rows of the table; all by default.
        out: folder of the table and its runs.
        seed: of all runs.
        gallery: pictures in which is searched; methods without a shared space match every pair of them.
        jobs: methods that are trained at once; the processors are shared out among them.
        rounds: of timing the steps of all methods by turns, when all are trained; 0 leaves the times out.
        json: print one JSON object instead of a table.
    """

    data: str = WORLD
    samples: int = 25_600
    methods: tuple[str, ...] = ()
    out: str = "runs/compare"
    seed: int = 0
    gallery: int = 100
    jobs: int = 1
    rounds: int = 7
    json: bool = False


def run(args: list[str]) -> int:
    """Fill the table and print it; exit code 1 where a cell failed."""
    asked = tyro.cli(Compare, args=args, prog="multiway compare")
    parse(asked.data)  # what is measured is one data set, which is better said before anything is trained
    table = compare(
        Path(asked.out),
        asked.data,
        asked.samples,
        asked.methods,
        asked.seed,
        asked.gallery,
        asked.jobs,
        asked.rounds,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if asked.json:
        print_json(table)
    else:
        shown = Table("", title=f"{asked.samples:,} samples of {asked.data} each; intervals in compare.md")
        for column in COLUMNS:
            shown.add_column(column.short, justify="right")
        for name, found in table["cells"].items():
            texts = ["failed"] if "failed" in found else [column.show(found).split(" ")[0] for column in COLUMNS]
            shown.add_row(name, *texts)
        console = Console()
        # Wrapped by the terminal it can still be read; cut to ellipses it cannot.
        Console(width=max(console.width, 140)).print(shown)
        print(f"{asked.out}/compare.md, {asked.out}/compare.json")
    return int(any("failed" in found for found in table["cells"].values()))
