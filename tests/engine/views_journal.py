"""Journals of runs on several views that never were: one for each method, drawn along curves like those of healthy ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Course = Callable[[float], float]  # of progress in [0, 1]

BATCH, QUEUE, CLASSES = 128, 4096, 9
LN9 = math.log(CLASSES)


def between(start: float, end: float, begin: float = 0.0, until: float = 1.0) -> Course:
    """From one value to another, smoothly, between two points of progress; constant outside."""

    def at(p: float) -> float:
        q = min(1.0, max(0.0, (p - begin) / (until - begin)))
        return start + (end - start) * q * q * (3 - 2 * q)

    return at


def falling(start: float, end: float) -> Course:
    """Fast at first, as losses fall."""
    return lambda p: end + (start - end) * math.exp(-5.0 * p)


def filling(p: float) -> float:
    """ln of the candidates of a queue that is empty in the first of 1,000 steps and fills within a tenth."""
    return math.log(1 + QUEUE * min(1.0, max(0.0, p - 1e-3) / 0.1))


VIEWS: dict[str, Course] = {"alignment": between(1.5, 0.4), "probe": falling(2.2, 1.2), "accuracy": between(0.03, 0.6)}
PREDICTED: dict[str, Course] = {"predictor_gain": between(-0.4, 0.05, 0.0, 0.4)}
TWIN: dict[str, Course] = {"twin_gap": between(0.05, 0.005), "momentum": between(0.99, 0.9999)}
PRESSED: dict[str, Course] = {"hardest_weight": between(0.02, 0.15), "negatives_felt": between(0.93, 0.6)}
SPREAD: dict[str, Course] = {
    "projected/std": between(0.8, 0.97, 0.0, 0.3),
    "projected/mean_cosine": between(0.35, 0.05, 0.0, 0.3),
    "projected/rank": between(60.0, 30.0),
    "projected/uniformity": between(-2.2, -3.3),
    "backbone/std": between(0.54, 0.6),
    "backbone/mean_cosine": between(0.7, 0.63),
    "backbone/rank": between(36.0, 25.0),
}
# What the method calls its term, its course, its chance value and the formula of that; then what it reports.
METHODS: dict[str, tuple[str, Course, Course, str, dict[str, Course]]] = {
    "simclr": ("nt_xent", falling(5.3, 3.9), lambda p: math.log(255), "ln 255", VIEWS | PRESSED),
    "simsiam": ("cosine", falling(0.0, -0.92), lambda p: -0.12, "-|mean target|", VIEWS | PREDICTED),
    "byol": ("distance", falling(2.07, 0.3), between(0.78, 1.7), "2 - 2 |mean target|", VIEWS | PREDICTED | TWIN),
    "moco": (
        "info_nce",
        lambda p: filling(p) * between(1.0, 0.7)(p),
        filling,
        "mean of ln K over rows, K from 4000 to 4097",
        VIEWS
        | PRESSED
        | TWIN
        | {
            "momentum": lambda p: 0.99,
            "queue_age": lambda p: QUEUE / BATCH * min(1.0, p / 0.1),
            "freshness": between(0.85, 0.75),
        },
    ),
    "moco-v3": ("info_nce", falling(3.9, 2.6), lambda p: 3.882, "2 x 0.4 x ln 128", VIEWS | PREDICTED | PRESSED | TWIN),
    "swav": (
        "swapped",
        falling(5.7, 4.4),
        lambda p: math.log(256),
        "ln 256",
        VIEWS
        | {"target_entropy": between(4.7, 3.6), "usage": lambda p: 5.545, "winners": between(0.39, 0.8), "divergence": between(1.0, 0.8)},
    ),
    "dino": (
        "distillation",
        falling(4.5, 3.0),
        lambda p: math.log(512),
        "ln 512",
        VIEWS
        | TWIN
        | {
            "target_entropy": between(2.9, 2.2),
            "usage": between(3.6, 4.5),
            "winners": between(0.09, 0.5),
            "divergence": between(1.5, 0.8),
            "teacher_temperature": lambda p: 0.04,
        },
    ),
    "instdisc": (
        "nce",
        lambda p: 8.3 + 9.0 * p / 0.06 if p < 0.06 else between(17.3, 4.0, 0.06, 0.6)(p),  # the bank fills
        lambda p: 7.932,
        "1025 H(1/1025)",
        {"probe": between(2.1, 1.3), "freshness": between(0.0, 0.7, 0.05, 0.3)} | PRESSED,
    ),
    "invaspread": ("spread", falling(6.4, 3.5), lambda p: 6.539, "P = 1/K among K = 255", VIEWS | PRESSED),
}  # fmt: skip
HEALTH = {
    "dino": {name.replace("projected", "targets"): course for name, course in SPREAD.items()}
    | {"targets/std": between(0.16, 0.05)}
}


def lines(
    method: str,
    steps: int = 1000,
    every: int = 10,
    seed: int = 0,
    noise: float = 1.0,
    epochs: float = 16.0,
    without: Iterable[str] = (),
    **bent: Course | float,
) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl.

    Args:
        method: whose.
        steps: that are planned, of which all are done.
        every: steps between lines, beside the first.
        seed: of the noise, of 1 to 3 % of each number.
        noise: a factor on it.
        epochs: of the run.
        without: names that were never logged.
        bent: courses in place of the healthy ones: `loss`, `chance`, or what is reported or measured (`projected__std`).
    """
    term, loss, chance, formula, report = METHODS[method]
    health = HEALTH.get(method, SPREAD)
    given = {name.replace("__", "/"): (each if callable(each) else _constant(each)) for name, each in bent.items()}
    named = {"loss": loss, "chance": chance, "lr": _rate, "grad_norm": between(3.0, 1.0), **report, **health, **given}
    courses = {name: course for name, course in named.items() if name not in set(without)}
    make = np.random.default_rng(seed)
    found = []
    for step in [1, *range(every, steps + 1, every)]:
        p = step / steps
        at = {name: _shaken(name, course(p), make.normal() * noise) for name, course in courses.items()}
        terms: dict[str, dict[str, Any]] = {
            term: {
                "value": at["loss"],
                "chance": chance(p) if "chance" not in given else at["chance"],
                "formula": formula,
                "weight": 1.0,
            }
        }
        if "probe" in at:
            terms["probe"] = {"value": at["probe"], "chance": LN9, "formula": "ln 9", "weight": 1.0}
        measured = {name: value for name, value in at.items() if "/" in name}
        for name in {each.partition("/")[0] for each in measured}:
            measured |= {f"{name}/rank_limit": float(BATCH), f"{name}/nonfinite": 0.0}
        found.append(
            {
                "step": step,
                "epoch": int(p * epochs),
                "loss": sum(each["value"] for each in terms.values()),
                "terms": terms,
                "report": {
                    name: at[name]
                    for name in at
                    if name in {*report, *given} and "/" not in name and name not in _OTHER
                },
                "health": measured,
                "lr": at["lr"],
                "grad_norm": at["grad_norm"],
            }
        )
    return found


_OTHER = {"loss", "chance", "lr", "grad_norm", "probe"}
_EXACT = {"lr", "momentum", "queue_age", "chance", "usage", "teacher_temperature"}


def _rate(p: float) -> float:
    return 1e-3 * min(1.0, (p + 0.01) / 0.1) * (0.5 + 0.5 * math.cos(math.pi * p))


def _constant(value: float) -> Course:
    return lambda p: value


def _shaken(name: str, value: float, by: float) -> float:
    return value if name in _EXACT else value * (1.0 + 0.02 * by)
