"""Referring expressions: which region of the picture do the words mean?

Yu et al., Modeling Context in Referring Expressions, ECCV 2016, arXiv 1608.00272: right is a region that overlaps the one that is
meant by half or more (intersection over union). The model chooses among the regions that come with the example; without any, among
all rectangles that a grid spans. `best_of_candidates` is the share of examples in which any of them is right.

Chance: a region drawn evenly among the example's candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from multiway.abilities import require
from multiway.data.example_loader import Wanted
from multiway.data.examples import Box, Examples, Kind, Pointed
from multiway.data.regions import RIGHT, overlaps, spanned
from multiway.tasks import statistics
from multiway.tasks.example_task import accuracies, encoded, require_examples
from multiway.tasks.task import Metric, Result, collect

__all__ = ["Pointings", "Refer"]


@dataclass(frozen=True)
class Pointings:
    """What was pointed at: details of the result.

    Attributes:
        keys, boxes: of each expression, the region that was chosen, in the order of the examples.
        overlap: with what is meant; nan where it is withheld.
    """

    keys: tuple[str, ...]
    boxes: tuple[Box, ...]
    overlap: tuple[float, ...]


@dataclass(frozen=True)
class Refer:
    """Words that mean one region of the picture.

    Attributes:
        cells: of the grid, a side, whose rectangles are chosen among where there are no candidates.
    """

    name: str = "refcoco"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "point")
    kind: ClassVar[Kind] = "pointed"
    pictures: ClassVar[int] = 1
    best: ClassVar[str] = "accuracy@0.5"

    cells: int = 6
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def answers(self, examples: Examples[Pointed]) -> tuple[str, ...]:
        """Nothing is listed: every picture has regions of its own."""
        return ()

    def wanted(self, answers: Sequence[str]) -> Wanted:
        """Which candidates overlap what is meant by half."""
        return Wanted(regions=self.candidates)

    def candidates(self, example: Pointed) -> tuple[Box, ...]:
        """What is chosen among: the example's own regions, or the rectangles of a grid."""
        return example.candidates or spanned(self.cells)

    def run(self, model: Any, examples: Examples[Pointed]) -> Result:
        """Score every candidate.

        Raises:
            LacksAbility: if the model was not tuned to point.
            DataError: for examples of another kind.
        """
        require(model, self.needs, self.name)
        require_examples(self.name, examples, self.kind, self.pictures)
        rows = [examples.example(number) for number in range(len(examples))]
        candidates = [self.candidates(row) for row in rows]
        chosen: list[Box] = [(0.0, 0.0, 1.0, 1.0)] * len(rows)
        for numbers, (pictures,), texts in encoded(model, examples, [[row.text] for row in rows]):
            widest = max(len(candidates[number]) for number in numbers)
            boxes = torch.zeros(len(numbers), widest, 4)
            for place, number in enumerate(numbers):
                boxes[place, : len(candidates[number])] = torch.tensor(candidates[number])
            scores = model.point(pictures, texts, boxes)
            for place, number in enumerate(numbers):
                own = candidates[number]
                chosen[number] = own[int(scores[place, : len(own)].argmax())]
        found = [
            float(overlaps([box], row.boxes).max()) if row.boxes else np.nan
            for box, row in zip(chosen, rows, strict=True)
        ]
        details = Pointings(tuple(row.key for row in rows), tuple(chosen), tuple(found))
        return collect(self, examples, self.metrics(rows, candidates, found), details)

    def metrics(
        self, rows: Sequence[Pointed], candidates: Sequence[Sequence[Box]], found: Sequence[float]
    ) -> Iterator[Metric]:
        """Accuracy at an overlap of half, the best that the candidates allow, and the mean overlap."""
        known = [number for number, overlap in enumerate(found) if not np.isnan(overlap)]
        if not known:
            return
        right = [overlaps(candidates[n], rows[n].boxes).amax(1) >= RIGHT for n in known]
        odds = [float(each.double().mean()) for each in right]
        groups, units = [rows[n].group for n in known], [rows[n].pictures[0] for n in known]
        chances = {
            group: float(np.mean([o for o, g in zip(odds, groups, strict=True) if g == group])) for group in groups
        }
        hits = [float(found[n] >= RIGHT) for n in known]
        yield from accuracies(
            "accuracy@0.5", hits, units, groups, float(np.mean(odds)), chances, self.resamples, self.seed
        )
        none = [""] * len(known)
        best = [float(each.any()) for each in right]
        yield from accuracies("best_of_candidates", best, units, none, None, None, self.resamples, self.seed)
        overlap = [found[n] for n in known]
        yield from accuracies("overlap", overlap, units, none, None, None, self.resamples, self.seed)

    def submission(self, result: Result) -> list[dict[str, Any]]:
        """Keys and boxes: left, top, right, bottom as shares of the picture. RefCOCO has no server."""
        seen: Pointings = result.details
        return [{"key": key, "box": list(box)} for key, box in zip(seen.keys, seen.boxes, strict=True)]
