"""The run's own curves, what the doctor says of it, and the figures of its training."""

from __future__ import annotations

from typing import Any

from multiway.engine.doctor import diagnose
from multiway.methods import method_class
from multiway.serve.subject import Refused, Subject
from multiway.serve.tabs.html import plots
from multiway.serve.tabs.tab import Tab
from multiway.serve.tabs.ui import Ui

__all__ = ["TAB", "drawn"]


def able(subject: Subject) -> bool:
    """Whether there is a run with a journal."""
    return subject.run is not None and subject.plots is not None and bool(subject.run.metrics())


def drawn(subject: Subject) -> str:
    """Curves as they are by now: of a run that goes on, again and again.

    Raises:
        Refused: if nothing was logged yet.
    """
    run = subject.run
    if run is None or subject.plots is None:
        raise Refused("A weights file has no curves: open the run's folder.")
    metrics, timings, config = run.metrics(), run.timings(), run.config
    if not metrics:
        raise Refused("Nothing was logged yet: wait for the run's first steps.")
    last, settings = metrics[-1], config["settings"]
    facts = [
        ("method", subject.model.name),
        ("data", str(config["data"])),
        ("steps", f"{last['step']:,} of {settings['steps']:,}"),
        ("batch", f"{settings['batch']:,}"),
        ("loss", _number(last["loss"])),
    ]
    facts += [
        (f"{name}, chance {term['chance']:.3f}", _number(term["value"]))
        for name, term in last["terms"].items()
        if term["chance"] is not None
    ]
    watched = method_class(subject.model.name).watched
    found = diagnose(metrics, timings, watched, {"lr": settings["lr"], "steps": settings["steps"]})
    findings = [(f"{each.what}.", f"{each.evidence}.") for each in found]
    return plots(subject.compute(lambda: subject.plots(metrics)), facts, findings)  # type: ignore[misc]


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else str(value)


def draw(subject: Subject, ui: Ui) -> None:
    """The tab."""
    with ui.gr.Row():
        button = ui.gr.Button("Draw again", size="sm", scale=0, min_width=120)
    answer = ui.gr.HTML(value=drawn(subject), elem_classes=["mw-answer"], padding=False)
    ui.on([button.click], lambda: drawn(subject), [], answer)


TAB = Tab("curves", "Curves", able, draw)
