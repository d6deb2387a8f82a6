"""The pointing game for every kind of map: which picture to believe.

Each map is asked where the words of an expression are, on pictures whose boxes are known; a hit is a hottest point in the box
(`tasks/pointing.py`). Two rows need no model: `random`, a point drawn evenly, and `centre`, the middle of the picture, which on
photographs is the harder one to beat. Kinds that know nothing of the words (attention, rollout) show what looking at things at
all is worth. The same expressions, pictures and resolution for all, so that rows differ by the map alone.

Where a map misses, its habits say how: it points at another thing of the picture, at nothing, or again and again at the same place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from multiway.config import ConfigError
from multiway.data.examples import Box, Examples, Pointed
from multiway.data.source import DataError
from multiway.data.view_boxes import in_view
from multiway.explain.kinds import KINDS
from multiway.explain.look import explain_pairs
from multiway.explain.pairs import Look
from multiway.hub.model import Model
from multiway.tasks import statistics
from multiway.tasks.example_task import accuracies, require_examples
from multiway.tasks.pointing import drawn_at, hit, inside_of
from multiway.tasks.task import Metric, Result
from multiway.workflows.fusion import spread

__all__ = ["BASELINES", "Habit", "Pointing", "pointing_game"]

BASELINES = ("random", "centre")
_RESOLUTION = 96  # points a side, as in grounding
_AT_ONCE = 32


@dataclass(frozen=True)
class Habit:
    """Where the maps of one kind point, whatever is asked.

    Attributes:
        things: share of the hottest points that lie in the box of anything that could have been meant; nan where the data list nothing.
        place: row and column of the cell that is hottest most often, in the map's own grid.
        often: share of the expressions for which it is. A model with an attention sink has the same place for most.
    """

    things: float
    place: tuple[int, int]
    often: float


@dataclass
class Pointing:
    """Details of the result, in the order of the examples.

    Attributes:
        examples: that were asked about.
        boxes: of each, where the model's view has them.
        hits: by kind, in [0, 1].
        things: by kind, the same of the boxes of all things that could be meant; nan where there are none.
        cells: by kind, row and column of the hottest cell.
        absent: kinds that the model has nothing to show for, and why.
    """

    examples: list[Pointed] = field(default_factory=list)
    boxes: list[tuple[Box, ...]] = field(default_factory=list)
    hits: dict[str, list[float]] = field(default_factory=dict)
    things: dict[str, list[float]] = field(default_factory=dict)
    cells: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, share: float) -> None:
        """One more hit, or miss."""
        self.hits.setdefault(kind, []).append(share)

    def look_at(self, kind: str, heat: Tensor, things: tuple[Box, ...]) -> None:
        """Where a (rows, columns) map of the last expression points."""
        drawn = _drawn(heat)
        self.add(kind, hit(drawn, self.boxes[-1]).share)
        self.things.setdefault(kind, []).append(hit(drawn, things).share)
        self.cells.setdefault(kind, []).append(divmod(int(heat.flatten().argmax()), heat.shape[1]))

    @property
    def habits(self) -> dict[str, Habit]:
        """By kind."""
        found = {}
        for kind, cells in self.cells.items():
            [(place, times)] = Counter(cells).most_common(1)
            known = [share for share in self.things[kind] if not np.isnan(share)]
            found[kind] = Habit(float(np.mean(known)) if known else float("nan"), place, times / len(cells))
        return found


def pointing_game(
    model: Model,
    examples: Examples[Pointed],
    kinds: Sequence[str] | None = None,
    samples: int = 500,
    look: Look | None = None,
    resamples: int = statistics.RESAMPLES,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Play it.

    Args:
        model: whose maps are asked.
        examples: expressions with boxes.
        kinds: names of maps; by default all that the model has.
        samples: expressions, at most, evenly spread over the split.
        look: how; a map is drawn from the layers and heads that are named in it.
        resamples, seed: of the intervals, by bootstrap over pictures.
        say: how far it is.

    Returns:
        A metric for each baseline and kind, and for each group of expressions; details are `Pointing`.

    Raises:
        CannotShow: if the model has nothing to show of a kind that was named.
        DataError: for examples of another kind, or without a box.
        ConfigError: for no samples.
    """
    if samples < 1:
        raise ConfigError(f"samples is {samples}; expected 1 expression at least")
    require_examples("pointing", examples, "pointed", 1)
    known = [number for number in range(len(examples)) if examples.example(number).boxes]
    if not known:
        raise DataError(
            f"{examples.name}@{examples.split} withholds its boxes: nothing can be said of where maps point"
        )
    numbers = spread(known, samples)
    found, chances = Pointing(), []
    for start in range(0, len(numbers), _AT_ONCE):
        rows = [examples.example(number) for number in numbers[start : start + _AT_ONCE]]
        pictures = [examples.pictures.image(row.pictures[0]) for row in rows]
        seen = explain_pairs(model, pictures, [row.text for row in rows], kinds, look)
        found.absent |= seen[0].absent
        for row, picture, own in zip(rows, pictures, seen, strict=True):
            boxes = in_view(row.boxes, picture.size, model.processor.view)
            found.examples.append(row)
            found.boxes.append(boxes)
            chances.append(_baselines(found, boxes))
            for kind, each in own.maps.items():
                found.look_at(kind, each.heat, in_view(row.candidates, picture.size, model.processor.view))
        say(f"{len(chances)} of {len(numbers)} expressions")
    metrics = {metric.name: metric for metric in _metrics(found, chances, resamples, seed)}
    return Result("pointing", examples.name, examples.split, metrics, found)


def _drawn(heat: Tensor) -> Tensor:
    return drawn_at(heat[None], _RESOLUTION)[0]


def _baselines(found: Pointing, boxes: tuple[Box, ...]) -> float:
    """What needs no model; the share of the view that the boxes are."""
    inside = inside_of(boxes, _RESOLUTION)
    chance = float(inside.double().mean())
    found.add("random", chance)
    middle = slice(_RESOLUTION // 2 - 1, _RESOLUTION // 2 + 1)  # the four points around the centre
    found.add("centre", float(inside[middle, middle].double().mean()))
    return chance


def _metrics(found: Pointing, chances: Sequence[float], resamples: int, seed: int) -> Iterator[Metric]:
    units = [row.pictures[0] for row in found.examples]
    groups = [row.group for row in found.examples]
    by_group = {
        group: float(np.mean([chance for chance, own in zip(chances, groups, strict=True) if own == group]))
        for group in set(groups)
    }
    order = [*BASELINES, *(kind for kind in KINDS if kind in found.hits)]
    for kind in order:
        yield from accuracies(kind, found.hits[kind], units, groups, float(np.mean(chances)), by_group, resamples, seed)
