"""`multiway matrix RUN RUN ... --tasks vqa nlvr2`: trained runs by tasks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multiway.cli.output import print_json
from multiway.recipes.world import WORLD
from multiway.workflows.matrix import matrix, matrix_markdown

__all__ = ["Matrix", "run"]


@dataclass(frozen=True)
class Matrix:
    """Tune runs for tasks on equal data and fill one table; finished cells are kept.

    Attributes:
        runs: trained runs.
        tasks: columns; all that heads are tuned for by default. Others, such as `retrieval` or `probe`, measure the runs as they are.
        data: what all are tuned on; they are measured on its `@test`.
        samples: examples seen by each in tuning.
        blind: which of the runs is tuned with its pictures hidden as well; the first by default.
        classes: pictures with classes, for `zeroshot`, `knn`, `probe` and `classification`.
        out: folder of the table and its runs.
        seed: of all runs.
        jobs: cells that are tuned at once.
        json: print one JSON object instead of a table.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    tasks: tuple[str, ...] = ()
    data: str = WORLD
    samples: int = 12_800
    blind: str = ""
    classes: str = "digits"
    out: str = "runs/matrix"
    seed: int = 0
    jobs: int = 1
    json: bool = False


def run(args: list[str]) -> int:
    """Fill the table and print it."""
    asked = tyro.cli(Matrix, args=args, prog="multiway matrix")
    table = matrix(
        asked.runs,
        Path(asked.out),
        asked.data,
        asked.samples,
        asked.tasks,
        asked.blind,
        asked.classes,
        asked.seed,
        asked.jobs,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if asked.json:
        print_json(table)
    else:
        print(matrix_markdown(table))
    return 0
