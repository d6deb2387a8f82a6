"""Drawing what `multiway explain` shows: panels of pictures and maps, dots, a map of embeddings. PNG bytes, the same each time."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from PIL import Image

__all__ = [
    "DPI",
    "Panel",
    "dim_outside",
    "distance_dots",
    "mosaic",
    "panels",
    "scatter",
    "similarity_tiles",
]

_STYLE: Any = {"font.size": 8, "axes.titlesize": 8, "axes.spines.top": False, "axes.spines.right": False}
DPI = 144
"""Of every figure."""

_INCH = 1.28  # side of a panel
_THUMB = 24  # side of a small picture in a map, in points
_NAMED = 10
"""Classes that get a colour of their own; the eye tells no more apart."""


@dataclass(frozen=True)
class Panel:
    """One small picture.

    Attributes:
        picture: (H, W, 3) uint8 or float in [0, 1], or (H, W) values that are coloured from their least to their greatest.
        title: above it, in one line or two.
        smooth: whether it is interpolated when enlarged; maps of patches are not.
    """

    picture: np.ndarray
    title: str = ""
    smooth: bool = False


def panels(rows: Sequence[Sequence[Panel | None]]) -> bytes:
    """Rows of panels, at least one in all; None leaves a place empty."""
    columns = max(len(row) for row in rows)
    lines = max(panel.title.count("\n") + 1 for row in rows for panel in row if panel is not None)
    above = 0.08 + 0.11 * lines  # of a panel, in its sides, for the title
    width, height = columns * 1.06, len(rows) * (1 + above) + 0.02
    # One pair of axes for all: a pair for each panel takes ten times as long.
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas(width * _INCH, height * _INCH)
        for number, row in enumerate(rows):
            top = number * (1 + above) + above
            for column, panel in enumerate(row):
                if panel is None:
                    continue
                left = column * 1.06 + 0.03
                axes.imshow(
                    panel.picture, cmap="viridis", interpolation="bilinear" if panel.smooth else "nearest",
                    extent=(left, left + 1, top + 1, top),
                )  # fmt: skip
                axes.add_patch(Rectangle((left, top), 1, 1, fill=False, edgecolor="#cbd5e1", linewidth=0.6))
                title = "\n".join(_short(line, 17) for line in panel.title.split("\n"))
                axes.text(left + 0.5, top - 0.03, title, ha="center", va="bottom")
        return _png(_framed(figure, axes, width, height))


def _canvas(wide: float, high: float) -> tuple[Figure, Axes]:
    """A figure of some inches, all of it axes."""
    figure = Figure(figsize=(wide, high))
    axes = figure.add_axes((0, 0, 1, 1), xticks=[], yticks=[], frame_on=False)
    return figure, axes


def _framed(figure: Figure, axes: Axes, width: float, height: float) -> Figure:
    """With its limits, the first row on top: every picture that is drawn into axes moves them."""
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    return figure


def dim_outside(square: Image.Image, kept: np.ndarray) -> np.ndarray:
    """A picture whose patches outside `kept` (rows, columns) are nearly grey: (H, W, 3) uint8."""
    cells = Image.fromarray(kept.astype(np.uint8) * 255).resize(square.size, Image.Resampling.NEAREST)
    pixels = np.asarray(square.convert("RGB")).astype(np.float32)
    return np.where(np.asarray(cells)[:, :, None] > 0, pixels, 0.25 * pixels + 0.75 * 190).astype(np.uint8)


def distance_dots(distances: np.ndarray, even: float) -> bytes:
    """A dot for each head over its block: (blocks, heads) pixels; a dashed line at what even attention has."""
    blocks, heads = distances.shape
    with matplotlib.rc_context(_STYLE | {"axes.grid": True, "grid.alpha": 0.25}):
        figure = Figure(figsize=(6.4, 2.7))
        axes = figure.subplots()
        for head, column in enumerate(distances.T):
            axes.plot(range(blocks), column, "o", markersize=5, alpha=0.8, label=f"head {head}")
        axes.axhline(even, color="#dc2626", linestyle="--", linewidth=1, label="even attention")
        axes.set(xlabel="block", ylabel="mean attention distance, pixels", xticks=range(blocks))
        axes.set_ylim(0, 1.1 * max(even, float(distances.max())))
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02), ncols=1 + heads // 9, fontsize=7)
        return _png(figure)


def similarity_tiles(cosines: np.ndarray, most: int = 8) -> bytes:
    """The maps of positions, laid out as the positions are: (side, side, side, side); at most `most` a side, evenly chosen."""
    side = len(cosines)
    chosen = np.unique(np.linspace(0, side - 1, min(side, most)).round().astype(int))
    tiles = cosines[np.ix_(chosen, chosen)]
    pad = max(1, side // 8)
    padded = np.pad(tiles, ((0, 0), (0, 0), (0, pad), (0, pad)), constant_values=np.nan)
    whole = padded.transpose(0, 2, 1, 3).reshape(len(chosen) * (side + pad), -1)[:-pad, :-pad]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 4.8))
        axes = figure.subplots()
        drawn = axes.imshow(whole, cmap="viridis", vmin=float(np.nanmin(whole)), vmax=1, interpolation="nearest")
        at = [number * (side + pad) + (side - 1) / 2 for number in range(len(chosen))]
        axes.set(xticks=at, yticks=at, xlabel="column of the patch", ylabel="row of the patch")
        axes.set_xticklabels(chosen.tolist())
        axes.set_yticklabels(chosen.tolist())
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(drawn, ax=axes, label="cosine", shrink=0.85)
        return _png(figure)


def mosaic(pictures: np.ndarray, titles: Sequence[str] = (), columns: int = 7) -> bytes:
    """Small pictures in a grid: (n, k, k, 3) in [0, 1], with a word over each, or none."""
    rows = -(-len(pictures) // columns)
    above = 0.24 if titles else 0.0
    width, height = columns * 1.08, rows * (1.08 + above)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas(width * 0.75, height * 0.75)
        for number, picture in enumerate(pictures):
            left, top = number % columns * 1.08 + 0.04, number // columns * (1.08 + above) + above + 0.04
            axes.imshow(picture, interpolation="nearest", extent=(left, left + 1, top + 1, top))
            if titles:
                axes.text(left + 0.5, top - 0.03, titles[number], ha="center", va="bottom", fontsize=6.5)
        return _png(_framed(figure, axes, width, height))


def scatter(
    places: np.ndarray, names: Sequence[str], marked: Sequence[tuple[np.ndarray, np.ndarray]], axes_named: bool
) -> bytes:
    """The map of embeddings.

    Args:
        places: (N, 2).
        names: of each one's class, empty where it has none.
        marked: (place (2,), small picture (H, W, 3)) of the given pictures, in order.
        axes_named: whether the two directions mean something (principal components).
    """
    counted = Counter(name for name in names if name)
    common = [name for name, _ in counted.most_common(_NAMED)]
    others = len(counted) - len(common)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 5.4))
        axes = figure.subplots()
        rest = np.array([name not in common for name in names], dtype=bool)
        if rest.any():
            label = f"{others} other classes" if others else "without a class" if common else None
            axes.scatter(
                places[rest, 0],
                places[rest, 1],
                s=12,
                color="#cbd5e1" if common else "#2563eb",
                linewidths=0,
                label=label,
            )
        for number, name in enumerate(common):
            own = np.array([each == name for each in names])
            axes.scatter(
                places[own, 0], places[own, 1], s=16, alpha=0.85, linewidths=0, label=f"{_short(name, 28)} ({counted[name]})",
                color=matplotlib.colormaps["tab10"](number),
            )  # fmt: skip
        for number, (place, picture) in enumerate(marked):
            image = OffsetImage(picture, zoom=_THUMB / max(picture.shape[:2]))
            # Beside the point, in turn on four sides, so that near ones do not cover one another.
            beside = 30 * np.array([(1, 1), (-1, -1), (1, -1), (-1, 1)][number % 4])
            line = {"arrowstyle": "-", "color": "#0f172a", "linewidth": 1}
            box = {"edgecolor": "#0f172a", "linewidth": 1.2}
            axes.add_artist(
                AnnotationBbox(
                    image, tuple(place), xybox=tuple(beside), boxcoords="offset points", pad=0.1, arrowprops=line, bboxprops=box,
                )
            )  # fmt: skip
            axes.plot(*place, "o", color="#0f172a", markersize=5)
            corner = tuple(beside + np.array([14, 6]))
            axes.annotate(str(number + 1), tuple(place), corner, textcoords="offset points", weight="bold")
        axes.set(xticks=[], yticks=[])
        if axes_named:
            axes.set(xlabel="first principal component", ylabel="second")
        axes.spines[:].set_visible(False)
        axes.margins(0.1)
        if common:
            axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=1.4)
        return _png(figure)


def _short(text: str, most: int) -> str:
    # matplotlib takes what stands between two dollars for mathematics, and captions come from strangers.
    text = text.replace("$", r"\$")
    return text if len(text) <= most else text[: most - 1] + "…"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
