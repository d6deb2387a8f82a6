"""Which row stands at which position of training: arithmetic, so that any step can be asked for alone.

Positions are laid end to end over all epochs; step s takes [s B, (s + 1) B), and a rank every W-th of them. So every row is
seen exactly once per epoch whatever the batch size, workers and ranks change nothing, and to resume at step s is to ask
for step s. Three orders of rows:

- `GlobalShuffle`: every epoch a permutation of all rows;
- `ShardShuffle`: shards in random order, the rows of a few neighbouring ones shuffled together, for storage on which jumping is
  slow;
- `Mixed`: several of these, drawn from by weight, each passed at its own pace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from multiway.data.draws import derived, scattered, shuffled
from multiway.data.source import DataError, InShards, Mixes, Source

__all__ = ["GlobalShuffle", "Mixed", "Order", "Passes", "ShardShuffle", "Shuffle", "passes_of"]


class Passes(Protocol):
    """The rows of a source in the order in which they are seen, epoch after epoch, without end."""

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(epochs, rows), each (P,) int64, at any positions (P,) from 0."""
        ...

    def kin(self, row: int) -> range:
        """The rows that may stand in for one that cannot be read."""
        ...


@dataclass(frozen=True)
class Shuffle:
    """How the rows of an epoch are shuffled.

    Attributes:
        by: `global`, all together; `shards`, a few shards at a time.
        window: shards that are shuffled together.
    """

    by: Literal["global", "shards"] = "global"
    window: int = 8

    def __post_init__(self) -> None:
        if self.by not in ("global", "shards") or self.window < 1:
            raise DataError(
                f"a shuffle by {self.by!r} of {self.window} shards; expected `global` or `shards`, and 1 shard or more"
            )


@dataclass(frozen=True)
class GlobalShuffle:
    """All rows together. Up to `draws.SORTED` rows an epoch is sorted once; above, each position is computed by itself."""

    rows: int
    seed: int

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Passes`."""
        epochs, offsets = np.divmod(positions, self.rows)
        found = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            found[here] = shuffled(self.seed, int(epoch), self.rows, offsets[here])
        return epochs, found

    def kin(self, row: int) -> range:
        """Any row."""
        return range(self.rows)


@dataclass(frozen=True)
class _Laid:
    """The shards of one epoch, laid end to end in its order."""

    shards: np.ndarray  # (S,) which shard comes when
    ends: np.ndarray  # (S,) position after each
    windows: np.ndarray  # (W + 1,) where each window begins, and the end


class ShardShuffle:
    """Shards in random order, every `window` of them shuffled together.

    A batch is read from `window` shards, two windows' worth where it straddles a border; two rows of shards that are far
    apart in an epoch's order never meet in it. Every epoch has another order of shards, and so other neighbours.

    Args:
        starts: (S + 1,) int64, ascending: rows [starts[i], starts[i + 1]) lie in one shard.
        window: shards that are shuffled together.
        seed: of the run.
    """

    def __init__(self, starts: np.ndarray, window: int, seed: int) -> None:
        self.starts, self.window, self.seed = np.asarray(starts, dtype=np.int64), window, seed
        self.rows = int(self.starts[-1])
        self._laid = lru_cache(maxsize=2)(self._lay)  # a batch may straddle two epochs

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Passes`."""
        epochs, offsets = np.divmod(positions, self.rows)
        found = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            found[here] = self._in_epoch(int(epoch), offsets[here])
        return epochs, found

    def kin(self, row: int) -> range:
        """Any row: where one of a shard is lost, often all are."""
        return range(self.rows)

    def _in_epoch(self, epoch: int, offsets: np.ndarray) -> np.ndarray:
        laid = self._laid(epoch)
        window = np.searchsorted(laid.windows, offsets, side="right") - 1
        places = np.empty_like(offsets)
        for number in np.unique(window):
            here = window == number
            first, end = laid.windows[number], laid.windows[number + 1]
            seed = derived(self.seed, "window", int(number))
            places[here] = first + scattered(seed, epoch, int(end - first), offsets[here] - first)
        turn = np.searchsorted(laid.ends, places, side="right")
        shards = laid.shards[turn]
        return self.starts[shards + 1] - (laid.ends[turn] - places)

    def _lay(self, epoch: int) -> _Laid:
        count = len(self.starts) - 1
        shards = scattered(self.seed, epoch, count, np.arange(count), "shards")
        ends = np.cumsum(np.diff(self.starts)[shards])
        borders = np.concatenate([[0], ends[self.window - 1 :: self.window], ends[-1:]])
        return _Laid(shards, ends, np.unique(borders))  # the last window may be complete, or of empty shards

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_laid"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._laid = lru_cache(maxsize=2)(self._lay)


class Mixed:
    """Several sources drawn from by weight.

    With weights 1 and 3, of every 4 positions one is the first source's, in random places; with 0.7 and 0.3, seven of every 10. Each
    source goes through its own epochs, whole ones, whatever the others do.

    Args:
        parts: the passes of each.
        starts: (N + 1,) row of the mixture with which each begins.
        weights: whole numbers without a common factor, 1 or more each.
        seed: of the run.
    """

    def __init__(self, parts: Sequence[Passes], starts: Sequence[int], weights: Sequence[int], seed: int) -> None:
        self.parts, self.starts, self.seed = list(parts), list(starts), seed
        self.rows = int(self.starts[-1])
        self._weights = np.asarray(weights, dtype=np.int64)
        self._ends = np.cumsum(self._weights)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Passes`; a row's epoch is that of its source."""
        cycles, offsets = np.divmod(positions, self._ends[-1])
        offsets = scattered(self.seed, cycles, int(self._ends[-1]), offsets, "mixture")
        which = np.searchsorted(self._ends, offsets, side="right")
        # The places of a source within a cycle are numbered by what they were scattered to, so that each number occurs once.
        own = cycles * self._weights[which] + offsets - (self._ends - self._weights)[which]
        epochs, rows = np.empty_like(positions), np.empty_like(positions)
        for number, part in enumerate(self.parts):
            here = which == number
            epochs[here], found = part.at(own[here])
            rows[here] = found + self.starts[number]
        return epochs, rows

    def kin(self, row: int) -> range:
        """Rows of the same source, so that weights stay what they are."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        near = self.parts[part].kin(row - self.starts[part])
        return range(near.start + self.starts[part], near.stop + self.starts[part])


@dataclass(frozen=True)
class Order:
    """Which row stands at which position of training.

    Attributes:
        rows: in the source.
        batch: rows per step over all ranks.
        seed: of the run.
        passes: the rows one after another; by default all shuffled together.
    """

    rows: int
    batch: int
    seed: int
    passes: Passes | None = None

    def at(self, step: int, rank: int = 0, world: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(epochs, rows), each (batch / world,) int64, of one step on one rank."""
        passes = self.passes or GlobalShuffle(self.rows, self.seed)
        return passes.at(np.arange(step * self.batch + rank, (step + 1) * self.batch, world))

    def epoch(self, step: int) -> float:
        """Passes over the rows that are complete before a step."""
        return step * self.batch / self.rows

    def instead(self, row: int, share: float) -> int:
        """A row to stand in for one that cannot be read.

        Args:
            row: that one.
            share: in [0, 1), the draw that decides.
        """
        near = (self.passes or GlobalShuffle(self.rows, self.seed)).kin(row)
        return near[int(share * len(near))]


def passes_of(source: Source, seed: int, shuffle: Shuffle) -> Passes:
    """The order that a source is seen in.

    Raises:
        DataError: for a shuffle by shards of data that lie in none.
    """
    if isinstance(source, Mixes):
        asked = [shuffle if isinstance(part, InShards) else Shuffle() for part in source.parts]
        if shuffle.by == "shards" and not any(each.by == "shards" for each in asked):
            raise _no_shards(source)
        parts = [
            passes_of(part, derived(seed, "part", number), how)
            for number, (part, how) in enumerate(zip(source.parts, asked, strict=True))
        ]
        return Mixed(parts, source.starts, source.weights, derived(seed, "mixture"))
    if shuffle.by == "global":
        return GlobalShuffle(len(source), seed)
    if not isinstance(source, InShards):
        raise _no_shards(source)
    return ShardShuffle(source.shard_starts, shuffle.window, seed)


def _no_shards(source: Source) -> DataError:
    return DataError(
        f"{source.name}@{source.split} lies in no shards, which --shuffle shards would take in turn; shuffle it globally, or pack it with "
        "`multiway data shard`"
    )
