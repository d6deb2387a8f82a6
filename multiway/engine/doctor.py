"""The doctor: reads the journal of a run and says what ails it, with numbers, likely causes and remedies.

The symptoms are functions in `engine/symptoms/`; this file asks each of them and writes down the answers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from multiway.engine.history import Finding, History
from multiway.engine.symptoms import ACUTE, CHRONIC, Symptom

__all__ = ["Finding", "diagnose", "render"]

# Before so many steps and lines the chronic symptoms are those of every young run.
ENOUGH_STEPS, ENOUGH_LINES = 50, 5
_ORDER = ("illness", "warning", "note", "ok")


def diagnose(
    metrics: Sequence[Mapping[str, Any]],
    timings: Sequence[Mapping[str, Any]] = (),
    watched: Mapping[str, tuple[float, float]] | None = None,
    context: Mapping[str, Any] | None = None,
    *,
    acute: Sequence[Symptom] = ACUTE,
    chronic: Sequence[Symptom] = CHRONIC,
) -> list[Finding]:
    """What the journal of a run tells, the worst first.

    A run without illness or warning gets one `ok`; one that is too short to tell gets a `note` that says so.

    Args:
        metrics: lines of metrics.jsonl; non-finite numbers may be words (`"nan"`).
        timings: lines of timings.jsonl; `step_seconds` includes `data_seconds`.
        watched: `Method.watched`: bounds of numbers in `report`.
        context: what the lines don't say, all optional: `steps` (planned), `score` (the evaluation metric that matters).
        acute: symptoms to look for in any run.
        chronic: symptoms to look for once there is some training to judge.
    """
    run = History([_lifted(line) for line in metrics], timings, watched, context)
    found = [finding for symptom in acute for finding in symptom(run)]
    trained = run.last_step - run.warm
    if len(run.metrics) < ENOUGH_LINES or trained < ENOUGH_STEPS:
        found.append(_too_short(run, trained))
    else:
        found += [finding for symptom in chronic for finding in symptom(run)]
        if not any(finding.severity in ("illness", "warning") for finding in found):
            found.append(_healthy(run))
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def _lifted(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line whose negative cosines (SimSiam's loss, in [-1, 1]) are told from -1 on, as 1 - cos.

    Symptoms ask what share of its chance value a term has reached; of numbers below zero there is no share.
    """
    terms = line.get("terms", {})
    below = {name for name, term in terms.items() if str(term.get("formula", "")).startswith("-")}
    if not below:
        return line
    return {**line, "terms": {name: _from_least(term) if name in below else term for name, term in terms.items()}}


def _from_least(term: Mapping[str, Any]) -> Mapping[str, Any]:
    numbers = {key: 1.0 + float(term[key]) for key in ("value", "chance") if term.get(key) is not None}
    return {**term, **numbers, "formula": "1 - " + str(term["formula"]).removeprefix("-")}


def render(findings: Sequence[Finding], width: int = 100) -> str:
    """Findings as plain text for a terminal."""
    return "\n\n".join(_paragraph(finding, width) for finding in findings)


def _paragraph(finding: Finding, width: int) -> str:
    lines = [f"{finding.severity.upper()}  {finding.term}: {finding.what}"]
    lines += textwrap.wrap(finding.evidence + ".", width, initial_indent="  ", subsequent_indent="  ")
    for title, items in (("likely causes:", finding.causes), ("try:", finding.tries)):
        if items:
            lines.append(f"  {title}")
        for number, item in enumerate(items, start=1):
            lines += textwrap.wrap(item, width, initial_indent=f"  {number:>3}. ", subsequent_indent=" " * 7)
    return "\n".join(lines)


def _too_short(run: History, trained: int) -> Finding:
    if not run.metrics:
        evidence = "no step has been logged yet"
    elif run.last_step == run.warm and trained == 0 and len(run.metrics) >= ENOUGH_LINES:
        evidence = f"at step {run.last_step} the learning rate is still rising"
    else:
        evidence = f"{len(run.metrics)} lines up to step {run.last_step}, {trained} steps after half of the warm-up"
    return Finding(
        "note",
        "run",
        "too short a run to tell",
        f"{evidence}; at least {ENOUGH_LINES} lines and {ENOUGH_STEPS} steps at full learning rate are needed",
        (),
        ("train on, and ask again",),
    )


def _healthy(run: History) -> Finding:
    loss = run.loss.finite
    planned = run.context.get("steps")
    until = f"{run.last_step} of {planned}" if planned else str(run.last_step)
    evidence = f"step {until}: the loss went from {loss.head().median():.4g} to {loss.tail().median():.4g}"
    below = []
    for name in run.terms:
        chance = run.chance(name).tail().median()
        if chance > 0:
            below.append(f"{name} is at {run.term(name).tail().median() / chance:.0%} of its chance value")
    return Finding("ok", "run", "no symptom found", "; ".join([evidence, *below]))
