"""The part of the explained page that says which kind of map to believe: the pointing game as a table, and some of its expressions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from multiway.data.examples import Box, Examples, Pointed
from multiway.explain.look import explain_pairs
from multiway.explain.pairs import Look
from multiway.hub.model import Model
from multiway.tasks.pointing import drawn_at, hit
from multiway.tasks.task import Metric, Result
from multiway.workflows.explain_figures import Panel, panels
from multiway.workflows.explain_kinds import map_panel
from multiway.workflows.explain_sections import Drawn, Given, Section
from multiway.workflows.fusion import spread
from multiway.workflows.pointing import BASELINES, Habit, Pointing

__all__ = ["pointing_section", "verdict"]

_EXAMPLES = 3
_GREEN = (5, 150, 105)


def verdict(metric: Metric) -> str:
    """What an interval says of a row beside a point drawn at random."""
    if metric.name in BASELINES or metric.chance is None:
        return ""
    if metric.low > metric.chance:
        return "above chance"
    return "below chance" if metric.high < metric.chance else "no better than chance"


def pointing_section(
    model: Model,
    examples: Examples[Pointed],
    result: Result,
    kinds: Sequence[str] | None = None,
    look: Look | None = None,
) -> Section:
    """A table of what was found, best first, and some expressions, evenly spread, with their boxes and where each map points."""
    found: Pointing = result.details
    rows = []
    whole = [metric for name, metric in result.metrics.items() if "[" not in name]
    for metric in sorted(whole, key=lambda each: -each.value):
        shares = (f"{100 * each:.1f}" for each in (metric.value, metric.low, metric.high))
        value, low, high = shares
        rows.append(
            (metric.name, f"{value} %", f"{low} – {high} %", verdict(metric), *_habit(found.habits.get(metric.name)))
        )
    chosen = spread(list(range(len(found.examples))), _EXAMPLES)
    some = [found.examples[place] for place in chosen]
    pictures = [examples.pictures.image(row.pictures[0]) for row in some]
    seen = explain_pairs(model, pictures, [row.text for row in some], kinds, look)
    figures = []
    for number, (place, row, picture, own) in enumerate(zip(chosen, some, pictures, seen, strict=True)):
        one = Given.of("", picture, model.processor.view)
        boxes = found.boxes[place]
        line: list[Panel | None] = [Panel(_marked(np.asarray(one.square), boxes), "what is meant")]
        for kind, each in own.maps.items():
            point = hit(drawn_at(each.heat[None], 96)[0], boxes)
            panel = map_panel(one, kind, each.heat, f"{kind}\n{'in the box' if point.share > 0 else 'beside it'}")
            line.append(Panel(_marked(panel.picture, boxes, point.point), panel.title))
        figures.append(Drawn(f"pointing-{number + 1}.png", panels([line]), row.text))
    asked = f"{len(found.examples)} expressions of {result.data}@{result.split}"
    return Section(
        "Which map to believe",
        f"The pointing game (arXiv 1608.00507) on {asked}: how often a map's hottest point lies in the box of what the words mean, with "
        "95 % intervals (bootstrap over pictures). Random is a point drawn evenly, centre the middle of the picture. Attention of a "
        "picture alone, and its rollout, do not know the words. Below, some expressions, evenly chosen: green the box, the cross the "
        "hottest point. Where a map misses, the last columns say how: how often it points at any thing that could be meant, and how often at "
        "the same place, counted from the upper left corner, whatever is asked (an attention sink).",
        figures,
        {
            "pointing": {name: [m.value, m.low, m.high, m.n, m.chance] for name, m in result.metrics.items()},
            "pointing habits": {
                kind: {"things": None if np.isnan(own.things) else own.things, "place": own.place, "often": own.often}
                for kind, own in found.habits.items()
            },
        },
        (("map", "in the box", "95 % interval", "beside a random point", "on any thing", "at one place"), *rows),
    )


def _habit(own: Habit | None) -> tuple[str, str]:
    if own is None:
        return "", ""
    row, column = own.place
    things = "" if np.isnan(own.things) else f"{100 * own.things:.1f} %"
    return things, f"{100 * own.often:.1f} % (row {row + 1}, column {column + 1})"


def _marked(picture: np.ndarray, boxes: Sequence[Box], point: tuple[float, float] | None = None) -> np.ndarray:
    """With boxes in green and a cross where it points."""
    image = Image.fromarray(picture)
    pen, (wide, high) = ImageDraw.Draw(image), image.size
    width = max(2, wide // 90)
    for left, top, right, bottom in boxes:
        if right > left and bottom > top:
            pen.rectangle((left * wide, top * high, right * wide - 1, bottom * high - 1), outline=_GREEN, width=width)
    if point is not None:
        x, y, arm = point[0] * wide, point[1] * high, wide / 24
        for colour, more in (((255, 255, 255), 2), ((15, 23, 42), 0)):
            pen.line((x - arm, y, x + arm, y), fill=colour, width=width + more)
            pen.line((x, y - arm, x, y + arm), fill=colour, width=width + more)
    return np.asarray(image)
