"""What the readers of annotation files share: pictures numbered once each, and rows turned into examples or rejected.

A reader says where the files lie and what one row means (`make`, which raises `BadRow` for a row that means nothing);
`gather` does the rest: counting, duplicates, the ceiling on rejected rows, and the comparison with the published size.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image

from multiway.data.annotated.records import Record
from multiway.data.decode import decode
from multiway.data.examples import Example, Kind, Pictures
from multiway.data.rejected import REJECTED_CEILING, Rejected, refuse_too_many
from multiway.data.source import BadRow, DataError

__all__ = ["ExampleFiles", "FolderPictures", "Published", "fingerprint_of", "gather", "one_of_splits"]

E = TypeVar("E", bound=Example)
V = TypeVar("V")


class FolderPictures:
    """Picture files that examples point at, numbered in the order in which they are first named; satisfies `Pictures`.

    Args:
        root: folder that all of them lie in.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: the images folder does not exist; download the pictures, or correct --images")
        self.root = root
        self.files: list[str] = []
        self._number: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.files)

    def number(self, *names: str) -> int:
        """The number of a picture.

        Args:
            names: paths within the folder at which it may lie, the likeliest first. The first one names the picture, so
                it must differ between pictures.

        Raises:
            BadRow: if it lies at none of them, or a path leads out of the folder.
        """
        known = self._number.get(names[0])
        if known is not None:
            return known
        for name in names:
            if "\0" in name or os.path.isabs(name) or ".." in name.split("/"):  # noqa: PTH117 - millions of rows
                raise BadRow(f"the picture {name!r:.60} is no path inside the images folder; correct the row")
            if os.path.isfile(f"{self.root}/{name}"):  # noqa: PTH113 - as above
                self._number[names[0]] = len(self.files)
                self.files.append(name)
                return len(self.files) - 1
        tried = " or ".join(dict.fromkeys((names[0], names[-1])))
        raise BadRow(f"there is no picture {tried:.200} in {self.root}; download it, or correct --images")

    def image(self, index: int) -> Image.Image:
        """The decoded picture, in its own size and mode.

        Raises:
            BadRow: if it cannot be decoded.
        """
        return decode(self.root / self.files[index], "")


@dataclass(frozen=True)
class Published:
    """How large the public split is, as its authors state it.

    Attributes:
        rows: in the file; 0 where it is not stated.
        noun: what they are: `questions`.
    """

    rows: int
    noun: str = "examples"

    def note(self, found: int) -> str:
        """What to say of a file with so many rows; empty where it is the whole public one."""
        if not self.rows or found == self.rows:
            return ""
        less = f"{found:,} of {self.rows:,} {self.noun}: a part of the public split"
        return less if found < self.rows else f"{found:,} {self.noun}; the public split has {self.rows:,}"


def one_of_splits(name: str, split: str, known: Mapping[str, V]) -> V:
    """What a reader's table says of a split.

    Raises:
        DataError: if there is none of that name, with those that there are.
    """
    if split not in known:
        raise DataError(f"{name} has no split {split!r}; it has {', '.join(known)}")
    return known[split]


@dataclass
class ExampleFiles(Generic[E]):
    """One split of a benchmark, read into memory; satisfies `Examples` and `HasNotes`.

    Attributes:
        name: of the data set, with its path, as the command line has it.
        split: which rows these are.
        kind: of all its examples.
        examples: in the order of the file.
        pictures: that they point at.
        labels: names of the classes of judged examples.
        rejected: rows that were left out on opening.
        notes: what should be said beside every figure that is measured on these examples; empty for a whole public split.
        fingerprint: of the examples.
    """

    name: str
    split: str
    kind: Kind
    examples: Sequence[E]
    pictures: Pictures
    labels: tuple[str, ...] = ()
    rejected: Sequence[object] = ()
    notes: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if not self.fingerprint:
            self.fingerprint = fingerprint_of(self.examples, self.labels, getattr(self.pictures, "files", ()))

    def __len__(self) -> int:
        return len(self.examples)

    def example(self, index: int) -> E:
        """One example; reads no picture."""
        return self.examples[index]


def fingerprint_of(examples: Iterable[Example], labels: Sequence[str] = (), files: Sequence[str] = ()) -> str:
    """Sixteen hexadecimal digits that name what examples say; another text, answer, label or order changes them.

    `where` does not enter, and pictures do by their file names, where they have any.
    """
    state = hashlib.blake2b(repr(tuple(labels)).encode(), digest_size=8)
    names: tuple[str, ...] = ()
    last: type[Example] | None = None
    for each in examples:
        if type(each) is not last:
            last = type(each)
            names = tuple(one.name for one in fields(each) if one.name not in ("where", "pictures"))
        shown = tuple(files[number] for number in each.pictures) if files else each.pictures
        state.update(repr((shown, *(getattr(each, name) for name in names))).encode())
    return state.hexdigest()


def gather(
    name: str,
    split: str,
    kind: Kind,
    records: Iterable[Record],
    make: Callable[[Record], E],
    pictures: Pictures,
    *,
    labels: tuple[str, ...] = (),
    published: Published | None = None,
    size: int | None = None,
    orphans: Iterable[Rejected] = (),
    ceiling: float = REJECTED_CEILING,
) -> ExampleFiles[E]:
    """All rows of a split, each an example or rejected.

    Args:
        name, split, kind, labels: of the data set.
        records: the rows, in order.
        make: turns one into an example; raises `BadRow` where it cannot.
        pictures: that the examples point at; `make` may number them as it goes.
        published: the size of the public split, for the note.
        size: rows of the whole file, if `records` are a part of what was published.
        orphans: losses that are found elsewhere, such as answers without a question; drawn after the last record.
        ceiling: share of rows that may be left out.

    Raises:
        DataError: if there are no rows, or too many cannot be used.
    """
    good: list[E] = []
    lost: list[Rejected] = []
    place: dict[str, str] = {}
    rows = 0
    for record in records:
        rows += 1
        try:
            example = make(record)
            if example.key in place:
                raise BadRow(f"its id {example.key!r:.60} is also that of {place[example.key]}; remove one of the two")
        except BadRow as error:
            lost.append(Rejected(record.where, str(error)))
            continue
        place[example.key] = example.where
        good.append(example)
    if not rows:
        raise DataError(f"{name}@{split}: the annotation file has no rows; download it again")
    beside = list(orphans)
    lost += beside
    refuse_too_many(lost, rows + len(beside), f"{name}@{split}", ceiling)
    note = published.note(rows if size is None else size) if published else ""
    return ExampleFiles(name, split, kind, good, pictures, labels, tuple(lost), (note,) if note else ())
