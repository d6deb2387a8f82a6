"""Curves of a run as SVG, for the report."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import cycle
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt

__all__ = ["COLOURS", "health_curves", "loss_curves", "overlaid_curves"]

COLOURS = ("#2563eb", "#db2777", "#059669", "#d97706", "#7c3aed", "#475569")
"""Of terms, and of runs beside one another, in order; beyond them they begin again."""

_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",
    "svg.hashsalt": "multiway",  # the same run gives the same file
    "font.family": ["sans-serif"],
}


def _numbers(values: Sequence[Any]) -> list[float]:
    """Values as floats; what is missing or not finite leaves a gap."""
    return [float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan for value in values]


def _smooth(values: list[float], reach: int = 4) -> list[float]:
    """Medians of up to 2 x reach + 1 neighbours: accuracies of one batch are noisy."""
    windows = (values[max(0, place - reach) : place + reach + 1] for place in range(len(values)))
    kept = ([value for value in window if not math.isnan(value)] for window in windows)
    return [median(window) if window else math.nan for window in kept]


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def loss_curves(metrics: list[dict[str, Any]]) -> str:
    """Every loss term over steps with its chance value as a dashed line, and the accuracies of training batches."""
    if not metrics:
        return ""
    steps = [line["step"] for line in metrics]
    rates = [name for name in metrics[-1]["report"] if name.endswith("accuracy")]
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.1))
        shown: list[float] = []
        for colour, (name, term) in zip(cycle(COLOURS), metrics[-1]["terms"].items(), strict=False):
            values = _numbers([line["terms"].get(name, {}).get("value") for line in metrics])
            label = name
            shown += [value for value in values if not math.isnan(value)]
            if term["chance"] is not None:
                # It moves where the candidates change, as when a queue joins in; then the loss jumps with it.
                chance = _numbers([line["terms"].get(name, {}).get("chance") for line in metrics])
                shown += [value for value in chance if not math.isnan(value)]
                axes[0].plot(steps, chance, color=colour, linestyle="--", linewidth=1)
                label = f"{name}, chance {term['chance']:.3f} = {term['formula']}"
            axes[0].plot(steps, values, color=colour, linewidth=1.4, label=label)
        axes[0].set(title="loss", xlabel="step", xlim=(0, steps[-1]), ylim=(0, 1.08 * max(shown, default=1.0)))
        # Below the plot, where it hides no curve.
        axes[0].legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        for colour, name in zip(cycle(COLOURS), rates, strict=False):
            values = _numbers([line["report"].get(name) for line in metrics])
            share = [100 * v for v in values]
            axes[1].plot(steps, share, color=colour, linewidth=0.8, alpha=0.25)
            label = name.removesuffix("_accuracy").replace("_", " ")
            axes[1].plot(steps, _smooth(share), color=colour, linewidth=1.4, label=label)
        axes[1].set(title="right answers in training batches, %", xlabel="step", ylim=(0, 100))
        if rates:
            axes[1].legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
        return _svg(figure)


def health_curves(metrics: list[dict[str, Any]]) -> str:
    """Learning rate, gradient norm, and the effective rank of the embeddings."""
    if not metrics:
        return ""
    steps = [line["step"] for line in metrics]
    ranks = [name for name in metrics[-1].get("health", {}) if name.endswith("rank")]
    with plt.rc_context(_STYLE):
        # Without embeddings (a tuned head) there is no third plot.
        figure, axes = plt.subplots(1, 2 + bool(ranks), figsize=(9.2, 2.3))
        axes[0].plot(steps, _numbers([line["lr"] for line in metrics]), color=COLOURS[0])
        axes[0].set(title="learning rate", xlabel="step")
        axes[1].plot(steps, _numbers([line["grad_norm"] for line in metrics]), color=COLOURS[1], linewidth=1)
        axes[1].set(title="gradient norm", xlabel="step", ylim=(0, None))
        for colour, name in zip(cycle(COLOURS), ranks, strict=False):
            values = _numbers([line.get("health", {}).get(name) for line in metrics])
            axes[2].plot(steps, values, color=colour, label=name.partition("/")[0])
        if ranks:
            axes[2].set(title="effective rank of embeddings", xlabel="step", ylim=(0, None))
            axes[2].legend(frameon=False)
        figure.tight_layout()
        return _svg(figure)


def overlaid_curves(runs: Sequence[tuple[list[dict[str, Any]], int]]) -> list[tuple[str, str]]:
    """Runs over each other, a plot for every loss term, every accuracy of training batches and every rank that two runs share, or one has.

    Args:
        runs: of each its logged lines and its batch, in the order of `COLOURS`. What they have seen is counted in rows, since a step
            of one may be ten of another.

    Returns:
        (title, SVG) of each plot: first losses, each with its chance value as a dashed line, then the others, smoothed.
    """
    losses = dict.fromkeys(name for lines, _ in runs for name in (lines[-1]["terms"] if lines else ()))
    rates = dict.fromkeys(
        name for lines, _ in runs for name in (lines[-1]["report"] if lines else ()) if name.endswith("accuracy")
    )
    ranks = dict.fromkeys(
        name for lines, _ in runs for name in (lines[-1].get("health", {}) if lines else ()) if name.endswith("/rank")
    )
    plots = [
        (f"loss: {name}", [[_term(line, name, "value") for line in lines] for lines, _ in runs], False)
        for name in losses
    ]
    plots += [
        (
            name.replace("_", " ") + ", %",
            [[_share(line["report"].get(name)) for line in lines] for lines, _ in runs],
            True,
        )
        for name in rates
    ]
    plots += [
        (
            f"effective rank: {name.partition('/')[0]}",
            [[line.get("health", {}).get(name) for line in lines] for lines, _ in runs],
            False,
        )
        for name in ranks
    ]
    chances = {
        f"loss: {name}": [[_term(line, name, "chance") for line in lines] for lines, _ in runs] for name in losses
    }
    rows = [[line["step"] * batch for line in lines] for lines, batch in runs]
    return [(title, _overlaid(rows, values, chances.get(title), noisy)) for title, values, noisy in plots]


def _term(line: dict[str, Any], name: str, field: str) -> Any:
    return line["terms"].get(name, {}).get(field)


def _share(value: Any) -> float | None:
    return 100 * value if isinstance(value, int | float) else None


def _overlaid(rows: list[list[int]], values: list[list[Any]], chances: list[list[Any]] | None, noisy: bool) -> str:
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(3.7, 2.2))
        for number, (seen, own) in enumerate(zip(rows, values, strict=True)):
            colour, numbers = COLOURS[number % len(COLOURS)], _numbers(own)
            if chances is not None:
                axes.plot(seen, _numbers(chances[number]), color=colour, linestyle="--", linewidth=0.9, alpha=0.7)
            if noisy:
                axes.plot(seen, numbers, color=colour, linewidth=0.7, alpha=0.2)
                numbers = _smooth(numbers)
            axes.plot(seen, numbers, color=colour, linewidth=1.5)
        # From 0, unless something goes below, as a difference of two losses may.
        shown = [value for each in (*values, *(chances or [])) for value in _numbers(each) if not math.isnan(value)]
        axes.set(
            xlabel="rows seen",
            ylim=(0 if min(shown, default=0.0) >= 0 else None, None),
            xlim=(0, max((each[-1] for each in rows if each), default=1)),
        )
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
        return _svg(figure)
