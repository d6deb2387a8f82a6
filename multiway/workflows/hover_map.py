"""A map of embeddings for a page, with pictures: point at a dot, or tap it, and what it stands for is shown. No scripts, no links.

How much it adds to a page is bounded: so many pictures at most, each a small JPEG of about a kilobyte.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from multiway.data.view import on_background
from multiway.workflows.run_page import environment

__all__ = ["MOST", "Dot", "hover_map"]

MOST = 400
"""Pictures on one map, at most: about 600 KB of a page."""

_SIDE = 72  # pixels of a picture
_QUALITY = 72
_COLOURS = (
    "#2563eb", "#db2777", "#059669", "#d97706", "#7c3aed", "#0891b2", "#dc2626", "#65a30d", "#a16207", "#475569",
)  # fmt: skip
_GREY = "#94a3b8"


@dataclass(frozen=True)
class Dot:
    """One place on the map.

    Attributes:
        place: across and up, in any units.
        name: of its class or kind, by which it is coloured; empty for none.
        caption: what is said of it.
        picture: shown when it is pointed at; None for a text.
        marked: whether it is one of the pictures that were asked about, drawn large.
    """

    place: tuple[float, float]
    name: str
    caption: str
    picture: Image.Image | None = None
    marked: bool = False


def hover_map(dots: Sequence[Dot], about: str = "") -> str:
    """HTML to be put into a page as it is.

    Args:
        dots: those beyond `MOST` pictures are shown without theirs.
        about: a sentence for those who cannot see it.
    """
    places = np.array([dot.place for dot in dots], dtype=np.float64)
    low, high = places.min(0), places.max(0)
    share = (places - low) / np.where(high > low, high - low, 1.0)
    common = [name for name, _ in Counter(dot.name for dot in dots if dot.name).most_common(len(_COLOURS))]
    colours = dict(zip(common, _COLOURS, strict=False))
    shown = []
    pictures = 0
    # Those asked about last, so that none covers them; pictures are for them first.
    order = sorted(range(len(dots)), key=lambda number: dots[number].marked)
    left = MOST - sum(dot.marked and dot.picture is not None for dot in dots)
    for number in order:
        dot = dots[number]
        uri = ""
        if dot.picture is not None and (dot.marked or pictures < left):
            uri = _jpeg(dot.picture)
            pictures += not dot.marked
        shown.append(
            {
                "left": f"{2 + 96 * share[number, 0]:.2f}", "top": f"{2 + 96 * (1 - share[number, 1]):.2f}", "uri": uri,
                "colour": colours.get(dot.name, _GREY), "dot": dot, "text": dot.picture is None,
            }
        )  # fmt: skip
    legend = [(name, colours[name], sum(dot.name == name for dot in dots)) for name in common]
    others = sum(bool(dot.name) and dot.name not in colours for dot in dots)
    if others:
        legend.append(("others", _GREY, others))
    texts = any(dot.picture is None for dot in dots)
    page = environment().get_template("hover_map.html.j2")
    return page.render(dots=shown, legend=legend, about=about, texts=texts)


def _jpeg(image: Image.Image) -> str:
    small = on_background(image, 255).copy()
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
