"""`multiway doctor RUN`: what ails a run, why perhaps, and what to try. Works while the run is still training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multiway.cli.output import print_json
from multiway.engine.doctor import diagnose, render
from multiway.engine.run import Run
from multiway.methods import method_class
from multiway.recipes import recipe_function

__all__ = ["Doctor", "run"]


@dataclass(frozen=True)
class Doctor:
    """Examine a run.

    Attributes:
        run: its folder.
        json: print one JSON object instead of sentences.
    """

    run: Annotated[str, tyro.conf.Positional]
    json: bool = False


def run(args: list[str]) -> int:
    """Diagnose and print; exit code 0 whatever the health, since the question was answered."""
    asked = tyro.cli(Doctor, args=args, prog="multiway doctor")
    folder = Run.read(Path(asked.run))
    recipe = folder.config
    watched = method_class(recipe_function(recipe["recipe"])().method_name).watched
    context = {
        "lr": recipe["settings"]["lr"],
        "steps": recipe["settings"]["steps"],
        "batch": recipe["settings"]["batch"],
    }
    findings = diagnose(folder.metrics(), folder.timings(), watched, context)
    if asked.json:
        print_json({"run": asked.run, "findings": [asdict(finding) for finding in findings]})
    else:
        print(render(findings))
    return 0
