"""Journals of ALBEF runs that never were: drawn along curves like those of healthy ones, each of which a test may bend."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from multiway.engine.history import History

Course = Callable[[float], float]  # of progress in [0, 1]

BATCH, QUEUE = 64, 4096
PRIOR = 0.6365141682948128  # H(1/3)
CHANCES = {"itc": (math.log(QUEUE + BATCH), "ln 4160"), "itm": (PRIOR, "H(1/3)"), "mlm": (3.42, "H(words)")}


def between(start: float, end: float, begin: float = 0.0, until: float = 1.0) -> Course:
    """From one value to another, smoothly, between two points of progress; constant outside."""

    def at(p: float) -> float:
        q = min(1.0, max(0.0, (p - begin) / (until - begin)))
        return start + (end - start) * q * q * (3 - 2 * q)

    return at


def hump(p: float) -> float:
    """The twin's distance: it grows while the model leaves its initial state, and shrinks with the learning rate."""
    return between(0.0, 0.15, 0.0, 0.1)(p) if p < 0.1 else between(0.15, 0.02, 0.1, 1.0)(p)


HEALTHY: dict[str, Course] = {
    "itc": between(8.3, 1.5),
    "itm": between(PRIOR, 0.4, 0.1, 0.8),
    "mlm": lambda p: 1.2 + 4.5 * math.exp(-6 * p),
    "student_accuracy": between(0.02, 0.9, 0.05, 0.9),
    "twin_accuracy": between(0.02, 0.9, 0.1, 0.95),
    "image_to_text_accuracy": between(0.0, 0.6, 0.1, 1.0),
    "twin_gap": hump,
    "queue_gap": lambda p: 0.2 + 12.0 * math.exp(-14 * p),
    "hardness": lambda p: min(1.0, 2 * p),
    "match_positive": between(0.33, 0.6, 0.1, 0.6),
    "match_negative": between(0.333, 0.25, 0.1, 0.6),
    "negatives_above": between(0.4, 0.05, 0.05, 0.9),
    "positive_cosine": between(0.5, 0.85, 0.0, 0.5),
    "negative_cosine": between(0.48, 0.72, 0.0, 0.8),
    "random_cosine": between(0.48, 0.4),
    "temperature": between(0.07, 0.007),
    "lr": lambda p: 1e-3 * min(1.0, p / 0.05) * (0.5 + 0.5 * math.cos(math.pi * p)),
    "grad_norm": lambda p: 2.0,
}

SHARES = {
    "student_accuracy": 1,
    "twin_accuracy": 1,
    "image_to_text_accuracy": 1,
    "negatives_above": 2,
}  # of so many batches
SPREAD = {"queue_gap": 0.4, "itc": 0.03, "itm": 0.03, "mlm": 0.03, "match_positive": 0.05, "match_negative": 0.06}


def lines(
    steps: int = 1500,
    every: int = 10,
    seed: int = 0,
    noise: float = 1.0,
    until: float = 1.0,
    without: Iterable[str] = (),
    **bent: Course | float,
) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl.

    Args:
        steps: that are planned.
        every: steps between lines.
        seed: of the noise.
        noise: a factor on it; shares are drawn from binomial distributions unless it is 0.
        until: share of the steps that has been done.
        without: names that are not reported.
        bent: curves or constants in place of healthy ones, and names that ALBEF does not report.
    """
    generator = np.random.default_rng(seed)
    curves = {**HEALTHY, **{name: each if callable(each) else _constant(each) for name, each in bent.items()}}
    without = set(without)
    assert without <= {*curves, "queue_age"}, without
    curves = {name: curve for name, curve in curves.items() if name not in without}
    journal = []
    for step in range(every, round(until * steps) + 1, every):
        values = {"queue_age": float(min(step, QUEUE // BATCH))} if "queue_age" not in without else {}
        values |= {name: _noisy(name, curve(step / steps), noise, generator) for name, curve in curves.items()}
        terms = {
            name: {"value": values.pop(name), "chance": chance, "formula": formula, "weight": 1.0}
            for name, (chance, formula) in CHANCES.items()
            if name in values
        }
        lr, grad_norm = values.pop("lr"), values.pop("grad_norm")
        loss = sum(term["value"] for term in terms.values())
        journal.append({"step": step, "loss": loss, "terms": terms, "report": values, "lr": lr, "grad_norm": grad_norm})
    return journal


def run(planned: bool = True, steps: int = 1500, **course: Any) -> History:
    """The same as a history, which knows the planned steps or not."""
    return History(lines(steps, **course), context={"steps": steps} if planned else {})


def _constant(value: float) -> Course:
    return lambda p: value


def _noisy(name: str, value: float, noise: float, generator: np.random.Generator) -> float:
    if name in SHARES and noise > 0:
        tries = SHARES[name] * BATCH
        return float(generator.binomial(tries, value)) / tries
    if name in SPREAD:
        # A term at its prior stays there: a head that looks at nothing scores H(1/3) in every batch.
        spread = 0.003 if name == "itm" and value >= PRIOR else SPREAD[name]
        return float(value * math.exp(noise * spread * generator.normal()))
    return float(value)
