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

__all__ = ["health_curves", "loss_curves"]

_COLOURS = ("#2563eb", "#db2777", "#059669", "#d97706", "#7c3aed", "#475569")
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
        for colour, (name, term) in zip(cycle(_COLOURS), metrics[-1]["terms"].items(), strict=False):
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
        for colour, name in zip(cycle(_COLOURS), rates, strict=False):
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
        axes[0].plot(steps, _numbers([line["lr"] for line in metrics]), color=_COLOURS[0])
        axes[0].set(title="learning rate", xlabel="step")
        axes[1].plot(steps, _numbers([line["grad_norm"] for line in metrics]), color=_COLOURS[1], linewidth=1)
        axes[1].set(title="gradient norm", xlabel="step", ylim=(0, None))
        for colour, name in zip(cycle(_COLOURS), ranks, strict=False):
            values = _numbers([line.get("health", {}).get(name) for line in metrics])
            axes[2].plot(steps, values, color=colour, label=name.partition("/")[0])
        if ranks:
            axes[2].set(title="effective rank of embeddings", xlabel="step", ylim=(0, None))
            axes[2].legend(frameon=False)
        figure.tight_layout()
        return _svg(figure)
