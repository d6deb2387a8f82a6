"""What every data set looks like to the rest: rows of one picture and its captions, addressable by number.

A source is cheap to open (it reads an index, not the pictures), has a length, and draws nothing at random. Splits,
shuffling, augmentation and batching are other people's business (`loader.py`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

__all__ = [
    "BadRow",
    "DataError",
    "DrawsBatches",
    "Fetches",
    "InShards",
    "KnowsPictures",
    "KnowsTruth",
    "KnowsWords",
    "Mixes",
    "Reduces",
    "Row",
    "Source",
    "SourceSpec",
    "captions_to_learn",
    "held_out_split",
    "printable",
    "stable_id",
]

# Control characters but the new line, which lists of rows are made with; and those that turn the direction of writing.
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Text with control characters escaped (`\\x1b`): names from strangers' files must not command the reader's terminal."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


class DataError(ValueError):
    """Data that cannot be used at all: wrong layout, missing column, duplicate key. Names file, row and remedy."""

    def __str__(self) -> str:
        return printable(super().__str__())


class BadRow(ValueError):
    """One row that cannot be read (truncated picture, empty caption, ...). Training replaces it and counts it.

    The message names the file, the row and what is wrong with it.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def stable_id(text: str | bytes) -> int:
    """A non-negative 63-bit number that names `text` on every machine and in every run."""
    data = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1


def held_out_split(image_id: int) -> str:
    """`train`, `val` (5 %) or `test` (5 %) for data without splits of its own, by the hash of its picture.

    All captions of a picture fall on the same side, and adding rows never moves the others.
    """
    share = image_id % 100
    return "test" if share < 5 else "val" if share < 10 else "train"


@dataclass(frozen=True)
class Row:
    """One picture and what is said of it.

    Attributes:
        key: unique within the source; shown in messages and results.
        image_id: rows that show the same picture share it (`stable_id` of the path, the given id, or the bytes).
        captions: at least one, none empty. Training draws one per epoch; evaluation uses all.
        label: class number for labelled data; -1 where unknown.
        where: file and row, for messages: `pairs.jsonl, row 1204`.
        group: what kind of row this is (`2 objects`); tasks also report each group by itself. Empty for none.
    """

    key: str
    image_id: int
    captions: tuple[str, ...]
    label: int = -1
    where: str = ""
    group: str = ""


@runtime_checkable
class Source(Protocol):
    """One split of one data set.

    Attributes:
        name: `emoji`, or the path it was read from.
        split: `train`, `val`, `test` or a name of the data set's own (`composition`).
        classes: names of the labels, in order; empty where there are none.
        templates: prompt templates with `{}` for zero-shot classification, fitting for these captions.
        fingerprint: hash of what the rows are (index, not pixels), kept as provenance and checked on resume.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int: ...

    def row(self, index: int) -> Row:
        """The row's words; reads no picture."""
        ...

    def image(self, index: int) -> Image.Image:
        """The decoded picture, in its own size and mode.

        Raises:
            BadRow: if it cannot be decoded.
        """
        ...


@runtime_checkable
class DrawsBatches(Protocol):
    """A source that draws many pictures at once much faster than one by one: what a procedural world does."""

    def squares(self, rows: np.ndarray, side: int) -> np.ndarray:
        """Pictures of rows (B,) at any side: (B, side, side, 3) uint8, equal to what `image` gives at that side."""
        ...


@runtime_checkable
class InShards(Protocol):
    """A source whose rows lie in shards, one after another: neighbouring rows are read together faster.

    Attributes:
        shard_starts: (S + 1,) int64, ascending from 0 to the number of rows: rows [starts[i], starts[i + 1]) lie in one shard.
    """

    shard_starts: np.ndarray


@runtime_checkable
class Fetches(Protocol):
    """A source that is far away: it gets many pictures at once much faster than one by one."""

    def fetch(self, rows: np.ndarray) -> None:
        """Get the encoded pictures of rows (B,), to be at hand when these are asked for next. What fails is tried again then."""
        ...


@runtime_checkable
class Reduces(Protocol):
    """A source that can decode large pictures at a fraction of their size: what JPEG is made for."""

    def reduced(self, index: int, side: int) -> Image.Image:
        """The picture, perhaps smaller than it is, its shorter side at least `side` pixels; nearly what `image` resized gives.

        Raises:
            BadRow: if it cannot be decoded.
        """
        ...


@runtime_checkable
class KnowsPictures(Protocol):
    """A source that can tell its pictures from those of any other source."""

    def picture(self, index: int) -> str:
        """A name that two rows of whatever sources share only if they show the same picture; empty if there is none."""
        ...


@runtime_checkable
class Mixes(Protocol):
    """A source made of others, to be drawn from by weight.

    Attributes:
        parts: the N sources; a row of the whole is one of theirs.
        starts: (N + 1,) row with which each begins, and the number of rows.
        weights: how often each is drawn, relative to the others; whole numbers without a common factor.
    """

    parts: Sequence[Source]
    starts: Sequence[int]
    weights: Sequence[int]


@runtime_checkable
class KnowsWords(Protocol):
    """A source that knows which of its captions' words say what.

    Attributes:
        word_classes: words by class (`colour` -> `red`, `blue`, ...); a word is in one class at most.
    """

    word_classes: Mapping[str, tuple[str, ...]]


@runtime_checkable
class KnowsTruth(Protocol):
    """A source that can tell whether a caption is true of a picture: what a procedural world does."""

    def noise_kind(self, row: int) -> str:
        """What was done to a row's captions, by the data's own names for it; `none` where they are true."""
        ...

    def holds(self, row: int, caption: str) -> bool:
        """Whether any caption, also one that is not the row's own, is true of the row's picture."""
        ...


def captions_to_learn(source: Source) -> list[str]:
    """What a tokeniser is learned from: every caption, unless the source has more than that takes, or endlessly many.

    Such a source offers some of them as `tokenizer_captions`, and None where all will do.
    """
    offered: Sequence[str] | None = getattr(source, "tokenizer_captions", None)
    if offered is not None:
        return list(offered)
    return [caption for index in range(len(source)) for caption in source.row(index).captions]


@dataclass(frozen=True)
class SourceSpec:
    """`name[:path][@split]`, parsed: which source a command line means.

    Attributes:
        name: a bundled set (`emoji`, `digits`), or a file, folder or shard pattern.
        path: where the original files of a named data set lie; empty otherwise.
        split: empty for the command's default.
    """

    name: str
    path: str = ""
    split: str = ""

    def __str__(self) -> str:
        return self.name + (f":{self.path}" if self.path else "") + (f"@{self.split}" if self.split else "")
