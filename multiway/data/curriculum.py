"""Rows from easy to hard, as arithmetic: which of them stand at a step is a function of (seed, step).

Bengio, Louradour, Collobert and Weston, Curriculum Learning, 2009: easy examples first, then all. Rows are ranked by a score. How
large a part of them, the easiest, is trained on at which time is the pacing (Hacohen and Weinshall, 2019, arXiv 1904.03626);
`linear` and `root` are the competences of Platanios et al., 2019, arXiv 1903.09848, equations 6 and 7, with p = 2:

    c(u) = c0 + (1 - c0) u,        c(u) = sqrt(c0^2 + (1 - c0^2) u),        u = share of the way to `until`

The way is cut into phases, in each of which the part stays the same: its epochs, each in its own order, are laid end to end, as
those of all rows are (`loader.py`). So within a phase each of its rows is seen equally often, but for the last epoch, which the next
phase cuts short. Epochs are counted through. After the last phase come epochs of all rows, for as long as training lasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from multiway.data.draws import permutation
from multiway.data.source import DataError, stable_id

__all__ = ["CurriculumOrder", "Pacing"]


@dataclass(frozen=True)
class Pacing:
    """How fast a curriculum goes.

    Attributes:
        shape: of the way from the first part to all rows: `linear`; `root`, fast at first, so that what joins is seen in like
            shares; `step`, the first part until the end of the way, then all.
        start: share of the rows, the easiest, that training begins with.
        until: when all rows are there: a step, or below 1 a share of the schedule.
        phases: in which `linear` and `root` go.
        easy: whether low scores are easy (a length, a loss), or high ones (how well a caption matches).

    Raises:
        ValueError: for numbers out of range.
    """

    shape: Literal["linear", "root", "step"] = "root"
    start: float = 0.2
    until: float = 0.5
    phases: int = 10
    easy: Literal["low", "high"] = "low"

    def __post_init__(self) -> None:
        if not 0 < self.start <= 1 or self.until <= 0 or self.phases < 1:
            raise ValueError(
                "a curriculum starts with a share of the rows in (0, 1], has all of them after `until`, above 0, and 1 phase or more; "
                f"given start {self.start:g}, until {self.until:g}, phases {self.phases}"
            )

    def competence(self, progress: float) -> float:
        """Share of the rows that are trained on, at a share of the way in [0, 1]."""
        if progress >= 1:
            return 1.0
        if self.shape == "step":
            return self.start
        if self.shape == "linear":
            return self.start + (1 - self.start) * progress
        return math.sqrt(self.start**2 + (1 - self.start**2) * progress)

    def parts(self, rows: int, steps: int) -> tuple[tuple[int, int], ...]:
        """(first step, rows) of each phase; the last has all rows and no end.

        Args:
            rows: in all.
            steps: of the schedule.
        """
        way = round(self.until * steps if self.until < 1 else self.until)
        phases = 1 if self.shape == "step" else self.phases
        found: list[tuple[int, int]] = []
        for phase in range(phases + 1):
            begins, count = phase * way // phases, math.ceil(self.competence(phase / phases) * rows - 1e-9)
            if found and found[-1][0] == begins:  # fewer steps than phases
                found.pop()
            found.append((begins, count))
        return tuple(found)


class CurriculumOrder:
    """Which row stands at which position of training, easy ones first. Takes the place of `loader.Order`.

    Args:
        scores: (rows,) float64, one for each row. Equal ones stand in an order drawn by the seed.
        pacing: how the part grows.
        steps: of the schedule.
        batch: rows per step over all ranks.
        seed: of the run.

    Attributes:
        parts: (first step, rows) of each phase.

    Raises:
        DataError: for a score that is not finite; if the first part does not fill a batch, which would show rows twice at once.
    """

    def __init__(self, scores: Sequence[float] | np.ndarray, pacing: Pacing, steps: int, batch: int, seed: int) -> None:
        values = np.asarray(scores, dtype=np.float64)
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise DataError(f"the score of row {row} is {values[row]}; a curriculum needs finite ones: remove the row")
        self.rows, self.batch, self.seed = len(values), batch, seed
        ties = permutation(seed, stable_id("ties"), self.rows)
        sign = 1.0 if pacing.easy == "low" else -1.0
        self.ranked = ties[np.argsort(sign * values[ties], kind="stable")]
        self.parts = pacing.parts(self.rows, steps)
        if self.parts[0][1] < min(batch, self.rows):
            raise DataError(
                f"the curriculum begins with {self.parts[0][1]} of {self.rows} rows, fewer than a batch of {batch}; raise "
                f"--pacing.start to {min(1.0, batch / self.rows):.2g} or more, or train in smaller batches"
            )
        # Epochs before each phase; the one that it cuts short counts.
        self.before = [0]
        for (begins, count), (ends, _) in zip(self.parts, self.parts[1:], strict=False):
            self.before.append(self.before[-1] + -(-(ends - begins) * batch // count))

    def at(self, step: int, rank: int = 0, world: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(epochs, rows), each (batch / world,) int64, of one step on one rank."""
        phase = self._phase(step)
        begins, count = self.parts[phase]
        start = (step - begins) * self.batch
        local, offsets = np.divmod(np.arange(start + rank, start + self.batch, world), count)
        epochs, rows = local + self.before[phase], np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = self.ranked[permutation(self.seed, int(epoch), count)[offsets[here]]]
        return epochs, rows

    def epoch(self, step: int) -> float:
        """Passes over the part of the time that are complete before a step."""
        phase = self._phase(step)
        begins, count = self.parts[phase]
        return self.before[phase] + (step - begins) * self.batch / count

    def instead(self, row: int, share: float) -> int:
        """A row to stand in for one that cannot be read: any of those that are as easy as the first part, which are always there.

        Args:
            row: that one.
            share: in [0, 1), the draw that decides.
        """
        return int(self.ranked[int(share * self.parts[0][1])])

    def _phase(self, step: int) -> int:
        return max(phase for phase, (begins, _) in enumerate(self.parts) if begins <= step)
