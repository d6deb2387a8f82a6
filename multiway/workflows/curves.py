"""Curves of a run as SVG, for the report."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt

__all__ = ["health_curves", "loss_curves"]

_COLOURS = ("#2563eb", "#db2777", "#059669", "#d97706", "#7c3aed")
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


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def loss_curves(metrics: list[dict[str, Any]]) -> str:
    """Every loss term over steps with its chance value as a dashed line, and the accuracies within the batch."""
    if not metrics:
        return ""
    steps = [line["step"] for line in metrics]
    rates = [name for name in metrics[-1]["report"] if name.endswith("accuracy")]
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.1))
        shown: list[float] = []
        for colour, (name, term) in zip(cycle(_COLOURS), metrics[-1]["terms"].items(), strict=False):
            values = _numbers([line["terms"].get(name, {}).get("value") for line in metrics])
            axes[0].plot(steps, values, color=colour, linewidth=1.4, label=name)
            shown += [value for value in values if not math.isnan(value)]
            if term["chance"] is not None:
                shown.append(term["chance"])
                axes[0].axhline(term["chance"], color=colour, linestyle="--", linewidth=1)
                axes[0].annotate(
                    f"chance {term['chance']:.3f} = {term['formula']}", (steps[-1], term["chance"]),
                    ha="right", va="bottom", fontsize=8, color=colour,
                )  # fmt: skip
        axes[0].set(title="loss", xlabel="step", xlim=(0, steps[-1]), ylim=(0, 1.08 * max(shown, default=1.0)))
        axes[0].legend(frameon=False, loc="center right")
        for colour, name in zip(cycle(_COLOURS), rates, strict=False):
            values = _numbers([line["report"].get(name) for line in metrics])
            axes[1].plot(
                steps,
                [100 * v for v in values],
                color=colour,
                linewidth=1.2,
                label=name.removesuffix("_accuracy").replace("_", " "),
            )
        axes[1].set(title="right pair first within the training batch, %", xlabel="step", ylim=(0, 100))
        if rates:
            axes[1].legend(frameon=False, loc="lower right")
        return _svg(figure)


def health_curves(metrics: list[dict[str, Any]]) -> str:
    """Learning rate, gradient norm, and the effective rank of the embeddings."""
    if not metrics:
        return ""
    steps = [line["step"] for line in metrics]
    ranks = [name for name in metrics[-1].get("health", {}) if name.endswith("rank")]
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(9.2, 2.3))
        axes[0].plot(steps, _numbers([line["lr"] for line in metrics]), color=_COLOURS[0])
        axes[0].set(title="learning rate", xlabel="step")
        axes[1].plot(steps, _numbers([line["grad_norm"] for line in metrics]), color=_COLOURS[1], linewidth=1)
        axes[1].set(title="gradient norm", xlabel="step", ylim=(0, None))
        for colour, name in zip(cycle(_COLOURS), ranks, strict=False):
            values = _numbers([line.get("health", {}).get(name) for line in metrics])
            axes[2].plot(steps, values, color=colour, label=name.partition("/")[0])
        axes[2].set(title="effective rank of embeddings", xlabel="step", ylim=(0, None))
        if ranks:
            axes[2].legend(frameon=False)
        figure.tight_layout()
        return _svg(figure)
