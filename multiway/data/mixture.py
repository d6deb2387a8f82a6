"""Several sources as one, to be drawn from by weight: `--data 'emoji*1 + scenes:easy*3'`.

The rows of all of them lie end to end, and keep what they are. Which comes when is `order.Mixed`'s matter: of every four rows one is an
emoji, and each source is passed at its own pace, every row once per pass.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from PIL import Image

from multiway.data.examples import HasNotes
from multiway.data.rejected import Rejected
from multiway.data.source import DataError, KnowsPictures, Row, Source, captions_to_learn, stable_id
from multiway.data.subset import Subset

__all__ = ["Mixture", "Renamed"]


class Mixture:
    """Sources to be drawn from by weight; satisfies `Source` and `Mixes`.

    Rows of two sources share an `image_id` only if they are known to show the same picture: they are of the same data set, shards
    that were written of it, or the same file. Classes are joined by name: a `cat` of one is a `cat` of the other. Words, scenes and
    truths that only one of them knows are not the mixture's; measure on that one.

    Args:
        name: as it was asked for.
        parts: at least one.
        weights: whole numbers without a common factor, 1 or more.
        sets: the data set that each is a split of; within one, ids agree.

    Raises:
        DataError: for a source that is there twice, or has no rows.
    """

    def __init__(self, name: str, parts: Sequence[Source], weights: Sequence[int], sets: Sequence[str]) -> None:
        self.name, self.parts, self.weights = name, list(parts), list(weights)
        self.split = "+".join(dict.fromkeys(part.split for part in self.parts))
        self.starts = [0, *accumulate(len(part) for part in self.parts)]
        self.labels = [f"{part.name}@{part.split}" for part in self.parts]
        for label, part in zip(self.labels, self.parts, strict=True):
            if self.labels.count(label) > 1:
                raise DataError(f"{name} names {label} twice; name it once, with the weight of both")
            if not len(part):
                raise DataError(f"{name}: {label} has no rows; leave it out")
        self._sets = list(sets)
        self.classes: tuple[str, ...] = tuple(dict.fromkeys(each for part in self.parts for each in part.classes))
        numbers = {each: number for number, each in enumerate(self.classes)}
        self._classes = [[numbers[each] for each in part.classes] for part in self.parts]
        taught = next((part for part in self.parts if part.classes), self.parts[0])
        self.templates: tuple[str, ...] = taught.templates
        self.rejected: list[Rejected] = [each for part in self.parts for each in getattr(part, "rejected", ())]
        self.notes = tuple(note for part in self.parts if isinstance(part, HasNotes) for note in part.notes)
        whole = "".join(f"{part.fingerprint} {weight} " for part, weight in zip(self.parts, self.weights, strict=True))
        self.fingerprint: str = hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()

    def __len__(self) -> int:
        return self.starts[-1]

    def row(self, index: int) -> Row:
        """The row, with ids and classes that hold over all sources."""
        part, inner = self._at(index)
        row = self.parts[part].row(inner)
        known = self._classes[part]
        return replace(
            row,
            key=f"{self.labels[part]}/{row.key}",
            image_id=self._image_id(part, inner, row),
            label=known[row.label] if 0 <= row.label < len(known) else -1,
        )

    def image(self, index: int) -> Image.Image:
        """The decoded picture; raises BadRow if it cannot be decoded."""
        part, inner = self._at(index)
        return self.parts[part].image(inner)

    @property
    def tokenizer_captions(self) -> tuple[str, ...]:
        """What a tokeniser is learned from: every caption, or what an endless source offers instead; weights count for nothing."""
        return tuple(caption for part in self.parts for caption in captions_to_learn(part))

    def passes(self, rows: int) -> dict[str, float]:
        """How often each source has been passed when so many rows have been drawn of the mixture, by its name."""
        drawn = [rows * weight / sum(self.weights) for weight in self.weights]
        return {label: count / len(part) for label, count, part in zip(self.labels, drawn, self.parts, strict=True)}

    def _at(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {self.name}, which has {len(self):,}")
        part = bisect_right(self.starts, index) - 1
        return part, index - self.starts[part]

    def _image_id(self, part: int, inner: int, row: Row) -> int:
        source = self.parts[part]
        picture = source.picture(inner) if isinstance(source, KnowsPictures) else ""
        return stable_id(f"picture {picture}" if picture else f"of {self._sets[part]} {row.image_id}")


class Renamed(Subset):
    """A source with another name for its split, where those of several are listed together."""

    def __init__(self, source: Source, split: str) -> None:
        self.source, self.index, self.split = source, range(len(source)), split
