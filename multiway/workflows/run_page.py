"""What the pages of all runs share: the figures of the training itself, its curves, what the doctor says, what to try next.

One file without links to anywhere: pictures and plots are inside it, so that it can be mailed.
"""

from __future__ import annotations

import base64
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader

from multiway.engine.doctor import diagnose
from multiway.engine.run import Run
from multiway.hub.model import Model
from multiway.methods import method_class
from multiway.workflows.curves import health_curves, loss_curves

__all__ = ["environment", "summary_of", "write_page"]


def environment() -> Environment:
    """Templates that escape everything: captions come from strangers."""
    templates = Environment(loader=PackageLoader("multiway.workflows"), autoescape=True, trim_blocks=True)
    templates.filters["percent"] = lambda value: f"{100 * value:.1f}"
    templates.filters["uri"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode()
    templates.filters["figure"] = lambda value, nats: f"{value:.3f} nats" if nats else f"{100 * value:.1f} %"
    return templates


def write_page(run: Run, template: str, model: Model, commands: Sequence[tuple[str, str]], **more: Any) -> Path:
    """Render the page of a run.

    Args:
        run: its folder, read.
        template: that fills `run.html.j2`.
        model: what was trained.
        commands: (command, what it is for), shown at the end.
        **more: for the template.

    Returns:
        Where the page is.
    """
    config, metrics, timings = run.config, run.metrics(), run.timings()
    settings = {"lr": config["settings"]["lr"], "steps": config["settings"]["steps"]}
    page = (
        environment()
        .get_template(template)
        .render(
            run=run.path.name,
            config=config,
            provenance=run.provenance,
            model=model.describe(),
            machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
            summary=summary_of(metrics, timings, config),
            curves=loss_curves(metrics),
            health=health_curves(metrics),
            findings=diagnose(metrics, timings, method_class(model.name).watched, settings),
            commands=commands,
            **more,
        )
    )
    run.report_file.write_text(page, encoding="utf-8")
    return run.report_file


def summary_of(metrics: list[dict[str, Any]], timings: list[dict[str, Any]], config: dict[str, Any]) -> dict[str, Any]:
    """Figures of the training itself, from its own records; times are of the logged steps."""
    last = metrics[-1] if metrics else {"step": 0, "loss": float("nan")}
    steady = timings[1:] or timings
    per_step = sum(line["step_seconds"] for line in steady) / max(1, len(steady))
    return {
        "steps": last["step"],
        "loss": last["loss"],
        "rows": last["step"] * config["settings"]["batch"],
        "speed": config["settings"]["batch"] / per_step if steady else 0.0,
        "minutes": last["step"] * per_step / 60,
        "waiting": sum(line["data_seconds"] for line in steady)
        / max(1e-9, sum(line["step_seconds"] for line in steady)),
        # Runs of versions before these were kept have none.
        "saving": sum(line.get("checkpoint_seconds", 0.0) for line in steady)
        / max(1e-9, sum(line.get("loop_seconds", 0.0) for line in steady)),
    }
