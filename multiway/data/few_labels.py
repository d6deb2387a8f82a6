"""Few labels: a share of a split's labels, or those of the pictures that a file lists.

How well a method learns from few labels is measured with 1 % and 10 % of ImageNet's, the same number of each class (Zhai et al.,
S4L, 2019, arXiv 1905.03670; Chen et al., SimCLR, 2020, arXiv 2002.05709, section 6). Papers compare on the same pictures:
SimCLR's code has them as `imagenet_subsets/1percent.txt` and `10percent.txt`, a file name a line, `n04235860_14959.JPEG`.

Which pictures a share has is a function of the seed and their `image_id`, whatever order they come in. Pictures have a place in
an order of their class, and the first of every class come first, then the second of each, and so on, up to the share: so many of
each class where it has so many, at least one of each, and a larger share has all of a smaller one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from multiway.data.annotated.layout import read_lines
from multiway.data.draws import uniforms
from multiway.data.source import DataError, Mixes, Row, Source
from multiway.data.subset import Subset

__all__ = ["FewLabels", "places_in_class"]

_SHOWN = 3  # names that an error lists


@dataclass(frozen=True)
class FewLabels:
    """Which labels are seen.

    Attributes:
        which: a share in (0, 1], `0.01`; or a file with the name of a picture on each line; empty for all.
        seed: of the choice of a share.

    Raises:
        DataError: for a number that is no share.
    """

    which: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.share is not None and not 0.0 < self.share <= 1.0:
            raise DataError(
                f"labels is {self.which}; expected a share above 0 and at most 1 (0.01 for 1 %), or a file that lists pictures"
            )

    @property
    def share(self) -> float | None:
        """The share, where it is one."""
        try:
            return float(self.which)
        except ValueError:
            return None

    def seen(self, source: Source) -> Source:
        """The rows whose labels are seen, and no others; the source itself where these are all.

        Raises:
            DataError: if the data have no labels, or a listed name is not there, is of several pictures, or has no label.
        """
        return _Picked(source, self._rows(source)) if self.which else source

    def hidden(self, source: Source) -> Source:
        """All rows, with the label -1 (unknown) where it is not seen.

        Raises:
            DataError: as of `seen`.
        """
        return _Hidden(source, self._rows(source)) if self.which else source

    def _rows(self, source: Source) -> list[int]:
        if isinstance(source, Mixes):
            raise DataError(
                f"labels={self.which} chooses rows of one data set, and {source.name} mixes {len(source.parts)}; name one of them"
            )
        rows = [source.row(number) for number in range(len(source))]
        if not any(row.label >= 0 for row in rows):
            raise DataError(
                f"{source.name}@{source.split} has no labels, of which labels={self.which} would choose some; name labelled data"
            )
        if self.share is None:
            return _listed(Path(self.which), rows, source)
        return _shared(self.share, rows, self.seed)


def places_in_class(
    labels: NDArray[np.int64], pictures: NDArray[np.int64], seed: int, draw: int = 0
) -> NDArray[np.int64]:
    """Where each picture stands in a random order of its class, from 0.

    Args:
        labels: (N,) classes.
        pictures: (N,) `image_id`; no picture twice in a class.
        seed, draw: another of either is another order.

    Returns:
        (N,), a function of the seed, the draw and `pictures` alone: it does not depend on the order of the rows.
    """
    keys = uniforms(seed, np.full(len(pictures), draw), pictures, "few labels", 1)[:, 0]
    order = np.lexsort((pictures, keys, labels))
    starts = np.searchsorted(labels[order], labels[order])
    places = np.empty(len(labels), dtype=np.int64)
    places[order] = np.arange(len(labels)) - starts
    return places


def _shared(share: float, rows: Sequence[Row], seed: int) -> list[int]:
    """Numbers of the rows of the pictures that are chosen; all captions of a picture go with it."""
    known = [(number, row) for number, row in enumerate(rows) if row.label >= 0]
    pairs = dict.fromkeys((row.label, row.image_id) for _, row in known)
    labels, pictures = np.array(list(pairs), dtype=np.int64).T
    places = places_in_class(labels, pictures, seed)
    # Which classes have one more where the number does not divide: by chance too, or those that are named first always would.
    turns = uniforms(seed, np.zeros_like(labels), labels, "few labels by class", 1)[:, 0]
    count = max(len(np.unique(labels)), round(share * len(labels)))
    first = np.lexsort((labels, turns, places))[:count]
    chosen = set(zip(labels[first].tolist(), pictures[first].tolist(), strict=True))
    return [number for number, row in known if (row.label, row.image_id) in chosen]


def _listed(path: Path, rows: Sequence[Row], source: Source) -> list[int]:
    """Numbers of the rows that a file names: by key, by the last part of the key, or by that without its suffix."""
    if not path.is_file():
        raise DataError(
            f"labels is {str(path)!r}, which is neither a number nor a file; expected a share (0.01), or a file with the name of a "
            "picture on each line"
        )
    names: dict[str, int] = {}
    for line, text in read_lines(path):
        name = (text or "").strip()
        if name in names:
            raise DataError(f"{path}, line {line}: {name:.80} is listed in line {names[name]} too; remove one of them")
        names[name] = line
    if not names:
        raise DataError(f"{path} lists no pictures; expected the name of one on each line")
    found: dict[str, set[int]] = {name: set() for name in names}
    chosen = []
    for number, row in enumerate(rows):
        last = PurePosixPath(row.key).name
        name = next((each for each in (row.key, last, PurePosixPath(last).stem) if each in found), "")
        if name:
            if row.label < 0:
                raise DataError(
                    f"{path}, line {names[name]}: {name:.80} is listed for its label, and {row.where or row.key} has none"
                )
            found[name].add(row.image_id)
            chosen.append(number)
    where = f"{source.name}@{source.split}"
    if lost := [name for name, there in found.items() if not there]:
        shown = ", ".join(lost[:_SHOWN]) + (" ..." if len(lost) > _SHOWN else "")
        raise DataError(
            f"{path}: {len(lost):,} of {len(names):,} listed pictures are not in {where}: {shown} (line {names[lost[0]]}); its "
            f"rows are called like {rows[0].key}: name the data and the split that the list is of"
        )
    if several := [name for name, there in found.items() if len(there) > 1]:
        raise DataError(
            f"{path}, line {names[several[0]]}: {several[0]:.80} is the name of {len(found[several[0]])} pictures of {where}; write "
            "it with its folder"
        )
    return chosen


class _Picked(Subset):
    """Some rows of a source, which by their number are other data than all of them."""

    def __init__(self, source: Source, index: Sequence[int]) -> None:
        self.source, self.index = source, index
        self.fingerprint = _fingerprint(source, index, "seen")


class _Hidden(Subset):
    """A source, most of whose labels are not seen."""

    def __init__(self, source: Source, seen: Sequence[int]) -> None:
        self.source, self.index = source, range(len(source))
        self._seen = frozenset(seen)
        self.fingerprint = _fingerprint(source, seen, "hidden")

    def row(self, index: int) -> Row:
        """The row; without its label, where that is not seen."""
        row = self.source.row(index)
        return row if index in self._seen else replace(row, label=-1)


def _fingerprint(source: Source, index: Sequence[int], how: str) -> str:
    """By which rows they are, not by how these were chosen or what a list is called."""
    numbers = np.asarray(index, dtype=np.int64).tobytes()
    return hashlib.blake2b(f"{source.fingerprint} {how} ".encode() + numbers, digest_size=8).hexdigest()
