"""`multiway report RUN`: evaluate a run on every held-out split and write its report.html."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multiway.workflows.report import write_report

__all__ = ["Report", "run"]


@dataclass(frozen=True)
class Report:
    """Write the report.

    Attributes:
        run: its folder.
    """

    run: Annotated[str, tyro.conf.Positional]


def run(args: list[str]) -> int:
    """Write it and say where it is."""
    asked = tyro.cli(Report, args=args, prog="multiway report")
    print(write_report(Path(asked.run)))
    return 0
