"""`multiway report RUN`: evaluate a run on every held-out split and write its report.html; of several runs, one page side by side."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import tyro

from multiway.cli.output import print_json
from multiway.config import ConfigError
from multiway.engine.run import Run
from multiway.workflows.report import write_report
from multiway.workflows.runs_page import Beside, write_runs
from multiway.workflows.tuned_report import is_tuned, write_tuned_report

__all__ = ["Report", "run"]


@dataclass(frozen=True)
class Report:
    """Write the report of a run, or one page on several.

    Attributes:
        runs: their folders. Of one, `report.html` in it; of several, a page that has them side by side.
        beside: of a run that was tuned for a task: pictures with captions, `name[:path][@split]`, on which retrieval, zero-shot
            classification, ... are measured before and after; by default its own data where they have captions.
        data: of several runs: what all are measured on; by default the first one's first held-out split.
        rows: of several: pictures in which is searched.
        queries: of several: texts and pictures that are shown as each run answers them.
        pointing: of several: data with boxes, `scenes@test`, on which their maps play the pointing game.
        samples: of several: expressions of it, at most.
        out: of several: the page's file; by default `side-by-side.html` beside the first run.
        json: of several: print one JSON object with the numbers behind the page.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    beside: tuple[str, ...] = ()
    data: str = ""
    rows: int = 100
    queries: int = 4
    pointing: str = ""
    samples: int = 200
    out: str = ""
    json: bool = False


def run(args: list[str]) -> int:
    """Write it and say where it is."""
    asked = tyro.cli(Report, args=args, prog="multiway report")
    folders = [Path(name) for name in asked.runs]
    if not folders:
        raise ConfigError("there is no run to report; name its folder, or several")
    if len(folders) > 1:
        return _several(asked, folders)
    given = replace(asked, beside=())
    if given != Report(asked.runs):
        named = [
            f"--{each.name}"
            for each in fields(Report)
            if getattr(given, each.name) != getattr(Report(asked.runs), each.name)
        ]
        raise ConfigError(
            f"{', '.join(named)}: for several runs side by side; one run is measured on its own held-out splits"
        )
    folder = folders[0]
    if is_tuned(Run.read(folder).config):
        print(write_tuned_report(folder, asked.beside))
        return 0
    if asked.beside:
        raise ConfigError(
            f"--beside compares a tuned run with the one that it began from; {folder} was not tuned for a task"
        )
    print(write_report(folder))
    return 0


def _several(asked: Report, folders: list[Path]) -> int:
    if asked.beside:
        raise ConfigError("--beside is for one tuned run; several runs are measured on --data")
    out = Path(asked.out) if asked.out else folders[0].resolve().parent / "side-by-side.html"
    how = Beside(asked.data, asked.rows, asked.queries, asked.pointing, asked.samples, _say)
    found = write_runs(folders, out, how)
    if asked.json:
        print_json({"task": "report", **found})
    else:
        print(found["page"])
    return 0


def _say(text: str) -> None:
    """On the error stream, so that `--json` stays one object."""
    print(text, file=sys.stderr)
