"""`multiway report RUN`: evaluate a run on every held-out split and write its report.html."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multiway.config import ConfigError
from multiway.engine.run import Run
from multiway.workflows.report import write_report
from multiway.workflows.tuned_report import is_tuned, write_tuned_report

__all__ = ["Report", "run"]


@dataclass(frozen=True)
class Report:
    """Write the report.

    Attributes:
        run: its folder.
        beside: of a run that was tuned for a task: pictures with captions, `name[:path][@split]`, on which retrieval, zero-shot
            classification, ... are measured before and after; by default its own data where they have captions.
    """

    run: Annotated[str, tyro.conf.Positional]
    beside: tuple[str, ...] = ()


def run(args: list[str]) -> int:
    """Write it and say where it is."""
    asked = tyro.cli(Report, args=args, prog="multiway report")
    folder = Path(asked.run)
    if is_tuned(Run.read(folder).config):
        print(write_tuned_report(folder, asked.beside))
        return 0
    if asked.beside:
        raise ConfigError(
            f"--beside compares a tuned run with the one that it began from; {folder} was not tuned for a task"
        )
    print(write_report(folder))
    return 0
