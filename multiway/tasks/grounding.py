"""Grounding without boxes to learn from: where does the model look when it finds that words fit a picture?

Li et al., ALBEF, 2021, arXiv 2107.07651, weakly-supervised visual grounding: the gradient of the match by the cross-attention of
one block (`nn/grad_cam.py`), averaged over the words, is a heat map. It is asked two things:

- `accuracy@0.5`: the candidate region whose heat, summed over it and divided by a power of its area (a half in ALBEF's released
  code, so that neither the largest nor the smallest region wins for its size), is greatest; right if it overlaps what is
  meant by half. Phrases that mean several regions are right with any of them.
- `pointing`: the pointing game (`pointing.py`): whether the hottest point lies in what is meant. It needs no candidates.

Chance: a candidate drawn evenly, and a point drawn evenly in what the model sees of the picture, which is the boxes' share of it.
Where several candidates or points are equally hot the mean over them counts, so that a map that says nothing scores chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.abilities import require
from multiway.data.example_loader import Wanted
from multiway.data.examples import Box, Examples, Kind, Pictures, Pointed
from multiway.data.regions import RIGHT, overlaps
from multiway.data.source import DataError
from multiway.data.view_boxes import in_view
from multiway.tasks import statistics
from multiway.tasks.embed import encode_images, encode_texts
from multiway.tasks.example_task import accuracies, require_examples
from multiway.tasks.heat_maps import heat_maps
from multiway.tasks.pointing import Hit, drawn_at, hit
from multiway.tasks.task import Metric, Result, collect

__all__ = ["Grounded", "Grounding"]


@dataclass(frozen=True)
class Grounded:
    """Where the model looked: details of the result, in the order of the examples.

    Attributes:
        keys: of the expressions.
        boxes: the region that was chosen; None where there are no candidates.
        points: the hottest point, across and down as shares of what the model sees.
        right: of the chosen region, in [0, 1]; nan where nothing can be said.
        hits: of the hottest point, the same.
    """

    keys: tuple[str, ...]
    boxes: tuple[Box | None, ...]
    points: tuple[tuple[float, float], ...]
    right: tuple[float, ...]
    hits: tuple[float, ...]


@dataclass(frozen=True)
class Grounding:
    """Words that mean a region, found by a model that was never told of regions.

    Attributes:
        block: whose attention is looked at, of those that fuse, from 0; negative counts from the last. None is the middle one,
            but not the first where there is another (`nn.grad_cam.chosen_block`): the third of six, which is ALBEF's.
        tokens: of the text that are averaged over: `all` real ones, as ALBEF does, or `words`, without start and end.
        area: power of a region's area that its heat is divided by; 0 favours large ones, 1 is the mean heat.
        resolution: points a side that the map is drawn at, by bicubic interpolation.
        chunk: pairs whose graph is held at once.
    """

    name: str = "grounding"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "match_with_maps")
    kind: ClassVar[Kind] = "pointed"
    pictures: ClassVar[int] = 1
    best: ClassVar[str] = "pointing"

    block: int | None = None
    tokens: Literal["all", "words"] = "all"
    area: float = 0.5
    resolution: int = 96
    chunk: int = 64
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def answers(self, examples: Examples[Pointed]) -> tuple[str, ...]:
        """Nothing is listed: nothing is tuned."""
        return ()

    def wanted(self, answers: Sequence[str]) -> Wanted:
        """Nothing: models are asked as they are.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"task `{self.name}` asks models as they are and teaches nothing; to learn from boxes tune for `refcoco`"
        )

    def run(self, model: Any, examples: Examples[Pointed]) -> Result:
        """Draw a map for every expression, and ask it for a region and a point.

        Raises:
            LacksAbility: if the model shows no attention.
            DataError: for examples of another kind.
            ValueError: for a block that there is none of, or tokens that are no square of patches.
        """
        require(model, self.needs, self.name)
        require_examples(self.name, examples, self.kind, self.pictures)
        rows = [examples.example(number) for number in range(len(examples))]
        regions: list[tuple[Box | None, float]] = [(None, np.nan)] * len(rows)
        points = [Hit((0.5, 0.5), np.nan, np.nan)] * len(rows)
        order = sorted(range(len(rows)), key=lambda number: rows[number].pictures)
        for start in range(0, len(order), self.chunk):
            numbers = order[start : start + self.chunk]
            maps, sizes = self._maps(model, examples, [rows[number] for number in numbers])
            for number, heat in zip(numbers, maps, strict=True):
                row, view = rows[number], model.processor.view
                size = sizes[row.pictures[0]]
                regions[number] = self._region(heat, row, in_view(row.candidates, size, view))
                points[number] = hit(heat, in_view(row.boxes, size, view))
        details = Grounded(
            tuple(row.key for row in rows),
            tuple(box for box, _ in regions),
            tuple(each.point for each in points),
            tuple(right for _, right in regions),
            tuple(each.share for each in points),
        )
        return collect(self, examples, self.metrics(rows, details, [each.chance for each in points]), details)

    def metrics(self, rows: Sequence[Pointed], found: Grounded, shares: Sequence[float]) -> Iterator[Metric]:
        """Accuracy where there are candidates, and the pointing game; nothing where the regions are withheld.

        Args:
            rows: the examples.
            found: in them.
            shares: of the view that lies in the boxes of each.
        """
        odds = [
            float((overlaps(row.candidates, row.boxes).amax(1) >= RIGHT).double().mean())
            if row.candidates and row.boxes
            else np.nan
            for row in rows
        ]
        for name, hits, chances in (("accuracy@0.5", found.right, odds), ("pointing", found.hits, shares)):
            known = [number for number, own in enumerate(hits) if not np.isnan(own)]
            if not known:
                continue
            groups, units = [rows[n].group for n in known], [rows[n].pictures[0] for n in known]
            by_group = {
                group: float(np.mean([chances[n] for n in known if rows[n].group == group])) for group in set(groups)
            }
            chance = float(np.mean([chances[n] for n in known]))
            yield from accuracies(
                name, [hits[n] for n in known], units, groups, chance, by_group, self.resamples, self.seed
            )

    def submission(self, result: Result) -> list[dict[str, Any]]:
        """Keys, boxes as shares of the picture and points as shares of the view; these benchmarks have no server."""
        found: Grounded = result.details
        return [
            {"key": key, "box": None if box is None else list(box), "point": list(point)}
            for key, box, point in zip(found.keys, found.boxes, found.points, strict=True)
        ]

    def _maps(
        self, model: Any, examples: Examples[Pointed], rows: Sequence[Pointed]
    ) -> tuple[Tensor, dict[int, tuple[int, int]]]:
        """(n, resolution, resolution) heat of some expressions, and the sizes of their pictures."""
        measured = _Measured(examples.pictures)
        different = sorted({row.pictures[0] for row in rows})
        shown = encode_images(model, measured, different, tokens=True)
        place = {number: line for line, number in enumerate(different)}
        images = shown.rows(torch.tensor([place[row.pictures[0]] for row in rows]))
        texts = encode_texts(model, [row.text for row in rows], tokens=True)
        special = tuple(model.processor.tokenizer.special.values()) if self.tokens == "words" else ()
        coarse = heat_maps(model, images, texts, self.block, special)
        # Between patches bicubic interpolation swings below zero; heat does not.
        return drawn_at(coarse, self.resolution).clamp(min=0), measured.sizes

    def _region(self, heat: Tensor, row: Pointed, seen: Sequence[Box]) -> tuple[Box | None, float]:
        """The hottest candidate and whether it is right; `seen` has the candidates where the view has them."""
        if not row.candidates:
            return None, np.nan
        left, top, right, bottom = torch.tensor(seen, dtype=torch.float64).unbind(1)
        across, down = (_within(low, high, len(heat)) for low, high in ((left, right), (top, bottom)))
        inside = torch.einsum("kr,rc,kc->k", down, heat.double(), across)
        area = (right - left) * (bottom - top)
        scores = torch.where(area > 0, inside / area.clamp(min=1e-12) ** self.area, -torch.inf)
        best = torch.isclose(scores, scores.max(), rtol=1e-9, atol=0.0)
        chosen = row.candidates[int(best.int().argmax())]
        if not row.boxes:
            return chosen, np.nan
        fits = (overlaps(row.candidates, row.boxes).amax(1) >= RIGHT).double()
        return chosen, float(fits[best].mean())


def _within(low: Tensor, high: Tensor, points: int) -> Tensor:
    """(K, points) share of each point's cell that lies between (K,) low and high."""
    edges = torch.linspace(0, 1, points + 1, dtype=torch.float64)
    common = torch.minimum(high[:, None], edges[1:]) - torch.maximum(low[:, None], edges[:-1])
    return common.clamp(min=0) * points


class _Measured:
    """Pictures whose sizes are kept as they are read."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.sizes: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self.pictures)

    def image(self, index: int) -> Image.Image:
        """The picture."""
        image = self.pictures.image(index)
        self.sizes[index] = image.size
        return image
