"""Rows whose pictures lie in files of their own: what caption files and folders both turn into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

from multiway.data.decode import decode
from multiway.data.rejected import Rejected
from multiway.data.source import BadRow, Row, stable_id

__all__ = ["SPLIT_NAMES", "PictureFiles", "fingerprint_of", "split_name", "update_fingerprint"]

# What a split is called elsewhere -> here.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_name(given: str) -> str:
    """`validation`, `Valid` and `dev` are `val`; a name of the data set's own stays as it is."""
    return SPLIT_NAMES.get(given.strip().lower(), given.strip())


def fingerprint_of(rows: Iterable[Row]) -> str:
    """Sixteen hexadecimal digits that name what the rows are; another caption, order or label changes them."""
    state = hashlib.blake2b(digest_size=8)
    for row in rows:
        update_fingerprint(state, row.key, row.image_id, row.captions, row.label)
    return state.hexdigest()


def update_fingerprint(state: hashlib.blake2b, key: str, image_id: int, captions: tuple[str, ...], label: int) -> None:
    """Add one row to the state of a fingerprint."""
    state.update(repr((key, image_id, captions, label)).encode())


@dataclass
class PictureFiles:
    """One split of data whose pictures are files.

    Attributes:
        name: the caption file or folder.
        split: which rows these are.
        rows: words of each.
        root, files: folder, and the picture of each row as a path within it.
        classes: names of the labels.
        templates: prompt templates.
        rejected: rows of the whole data set (all its splits) that were left out on opening.
        fingerprint: of the rows.
    """

    name: str
    split: str
    rows: Sequence[Row]
    root: Path
    files: Sequence[str]
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ("{}",)
    rejected: list[Rejected] = field(default_factory=list)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        self.fingerprint = self.fingerprint or fingerprint_of(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        """The row's words."""
        return self.rows[index]

    def image(self, index: int) -> Image.Image:
        """The decoded picture.

        Raises:
            BadRow: if it cannot be decoded.
        """
        return decode(self.root / self.files[index], self.rows[index].where)

    def reduced(self, index: int, side: int) -> Image.Image:
        """The picture, a JPEG perhaps at a fraction of its size; see `source.Reduces`."""
        return decode(self.root / self.files[index], self.rows[index].where, least=side)

    def picture(self, index: int) -> str:
        """The picture's file, where it is what the row is known by."""
        return f"{self._root}/{self.files[index]}" if self.rows[index].image_id == stable_id(self.files[index]) else ""

    @cached_property
    def _root(self) -> Path:
        return self.root.resolve()

    def encoded(self, index: int) -> bytes:
        """The picture's file as it is, for copying.

        Raises:
            BadRow: if it cannot be read.
        """
        try:
            return (self.root / self.files[index]).read_bytes()
        except OSError as error:
            raise BadRow(
                f"{self.rows[index].where}: {self.files[index]} cannot be read ({error.strerror}); check the file in {self.root}"
            ) from error
