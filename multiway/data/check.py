"""Look through all of a data set before hours are spent on it: what is there, what cannot be read, what leaks.

Every picture is decoded once, rows of the same picture together. Pictures and captions that two splits share are
found exactly (hash of the pixels) and nearly (difference hash).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from multiway.data.duplicates import NEAR, close_pairs, difference_hash, pixel_hash
from multiway.data.rejected import Rejected
from multiway.data.source import BadRow, Source

__all__ = ["CheckReport", "Overlap", "SplitReport", "check"]

_LISTED = 50  # pairs kept of each kind of overlap; the count is of all


@dataclass
class SplitReport:
    """What one split holds.

    Attributes:
        rows: in all.
        pictures: distinct `image_id`s.
        captions, distinct_captions: over all rows.
        words: number of captions by their number of words.
        sizes: (least, median, greatest) width and height, in pixels.
        modes: pictures by Pillow mode.
        labels: rows by class name; only where there are labels.
        unreadable: pictures that cannot be decoded.
        unreadable_rows: rows that show them.
        small: pictures whose shorter side is below the limit.
        same_pixels: pictures that repeat another's pixels under another `image_id`, whose captions would be taken for
            each other's negatives.
        flat: pictures without contrast, for which near duplicates cannot be told.
    """

    rows: int = 0
    pictures: int = 0
    captions: int = 0
    distinct_captions: int = 0
    words: dict[int, int] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    unreadable: list[Rejected] = field(default_factory=list)
    unreadable_rows: int = 0
    small: list[Rejected] = field(default_factory=list)
    same_pixels: list[tuple[str, str]] = field(default_factory=list)
    flat: int = 0


@dataclass
class Overlap:
    """What two splits share. Pairs are keys or captions, at most fifty of each kind.

    Attributes:
        first, second: the splits.
        pictures: number of the second's pictures whose pixels are also in the first.
        near: number of the second's other pictures that nearly are.
        captions: number of distinct captions in both.
        picture_pairs, near_pairs: keys, first's and second's; for near ones also the bits that differ.
        shared_captions: examples.
    """

    first: str
    second: str
    pictures: int = 0
    near: int = 0
    captions: int = 0
    picture_pairs: list[tuple[str, str]] = field(default_factory=list)
    near_pairs: list[tuple[str, str, int]] = field(default_factory=list)
    shared_captions: list[str] = field(default_factory=list)


@dataclass
class CheckReport:
    """What `check` found.

    Attributes:
        data: name of the data set.
        splits: by name.
        overlaps: of each two splits.
        rejected: rows and captions that were left out on opening.
        min_side: the limit, in pixels, that `small` refers to.
        near: the number of bits that `Overlap.near` refers to.
    """

    data: str
    splits: dict[str, SplitReport]
    overlaps: list[Overlap]
    rejected: list[Rejected]
    min_side: int
    near: int

    @property
    def findings(self) -> list[str]:
        """What deserves attention, a sentence each; empty when all is well."""
        found = [f"{len(self.rejected):,} rows or captions were left out on opening"] if self.rejected else []
        for name, split in self.splits.items():
            if split.unreadable:
                found.append(
                    f"{name}: {len(split.unreadable):,} pictures ({split.unreadable_rows:,} rows) cannot be read"
                )
            if split.small:
                found.append(f"{name}: {len(split.small):,} pictures have a side below {self.min_side} pixels")
            if split.same_pixels:
                found.append(
                    f"{name}: {len(split.same_pixels):,} pictures repeat another's pixels under another image_id"
                )
        for each in self.overlaps:
            what = f"of {each.second} are also in {each.first}"
            if each.pictures:
                found.append(f"{each.pictures:,} pictures {what}, pixel for pixel")
            if each.near:
                found.append(f"{each.near:,} pictures {what}, nearly (at most {self.near} of 64 bits differ)")
            if each.captions:
                found.append(f"{each.captions:,} captions {what}, word for word")
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        splits = {
            name: {**asdict(split), "words": {str(k): v for k, v in split.words.items()}}
            for name, split in self.splits.items()
        }
        return {
            "task": "data check",
            "data": self.data,
            "findings": self.findings,
            "splits": splits,
            "overlaps": [asdict(each) for each in self.overlaps],
            "rejected": [asdict(each) for each in self.rejected],
            "min_side": self.min_side,
            "near": self.near,
        }


@dataclass
class _Prints:
    """Fingerprints of one split's pictures: key of the first row with each, by pixels and by difference hash."""

    pixels: dict[bytes, str] = field(default_factory=dict)
    hashes: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    exact: list[bytes] = field(default_factory=list)
    captions: set[str] = field(default_factory=set)


def check(
    sources: Source | Sequence[Source],
    min_side: int = 16,
    near: int = NEAR,
    progress: Callable[[int], object] = lambda rows: None,
) -> CheckReport:
    """Look through one split, or several of one data set.

    Args:
        sources: the splits.
        min_side: pixels of the shorter side below which a picture is called small.
        near: bits of 64 by which difference hashes of near duplicates may differ.
        progress: called with the number of rows that were just done.
    """
    splits = list(sources) if isinstance(sources, Sequence) else [sources]
    reports: dict[str, SplitReport] = {}
    prints: dict[str, _Prints] = {}
    for source in splits:
        reports[source.split], prints[source.split] = _look_through(source, min_side, progress)
    overlaps = [
        _overlap(first, second, prints[first], prints[second], near) for first, second in combinations(prints, 2)
    ]
    # Splits of one data set carry the same list.
    rejected = dict.fromkeys(each for source in splits for each in getattr(source, "rejected", ()))
    return CheckReport(splits[0].name if splits else "", reports, overlaps, list(rejected), min_side, near)


def _look_through(source: Source, min_side: int, progress: Callable[[int], object]) -> tuple[SplitReport, _Prints]:
    report, prints = SplitReport(rows=len(source)), _Prints()
    words: Counter[int] = Counter()
    labels: Counter[str] = Counter()
    rows_of: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(source)):
        row = source.row(index)
        rows_of[row.image_id].append(index)
        words.update(len(caption.split()) for caption in row.captions)
        prints.captions.update(row.captions)
        if row.label >= 0:
            labels[source.classes[row.label] if row.label < len(source.classes) else str(row.label)] += 1
    report.pictures, report.captions, report.distinct_captions = len(rows_of), sum(words.values()), len(prints.captions)
    report.words, report.labels = dict(sorted(words.items())), dict(sorted(labels.items()))
    modes: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    for rows in rows_of.values():
        _look_at(source, rows, report, prints, modes, sizes, min_side)
        progress(len(rows))
    report.modes = dict(modes.most_common())
    if sizes:
        for name, values in zip(("width", "height"), np.array(sizes).T, strict=True):
            report.sizes[name] = (int(values.min()), int(np.median(values)), int(values.max()))
    return report, prints


def _look_at(
    source: Source,
    rows: Sequence[int],
    report: SplitReport,
    prints: _Prints,
    modes: Counter[str],
    sizes: list[tuple[int, int]],
    min_side: int,
) -> None:
    """Decode the picture that some rows share, and note what it is like."""
    row = source.row(rows[0])
    try:
        image = source.image(rows[0])
    except BadRow as error:
        report.unreadable.append(Rejected(row.where or row.key, str(error)))
        report.unreadable_rows += len(rows)
        return
    modes[image.mode] += 1
    sizes.append(image.size)
    if min(image.size) < min_side:
        report.small.append(Rejected(row.where or row.key, f"{image.width}x{image.height} pixels"))
    exact = pixel_hash(image)
    other = prints.pixels.setdefault(exact, row.key)
    if other != row.key:
        report.same_pixels.append((other, row.key))
    rough = difference_hash(image)
    if rough is None:
        report.flat += 1
        return
    prints.hashes.append(rough)
    prints.keys.append(row.key)
    prints.exact.append(exact)


def _overlap(first: str, second: str, one: _Prints, two: _Prints, near: int) -> Overlap:
    shared = [key for key in two.pixels if key in one.pixels]
    captions = sorted(one.captions & two.captions)
    found = Overlap(first, second, pictures=len(shared), captions=len(captions), shared_captions=captions[:_LISTED])
    found.picture_pairs = [(one.pixels[key], two.pixels[key]) for key in shared[:_LISTED]]
    seen: set[int] = set()
    pairs = close_pairs(np.array(one.hashes, dtype=np.uint64), np.array(two.hashes, dtype=np.uint64), near)
    for left, right, distance in _by_distance(*pairs):
        if two.exact[right] in one.pixels or right in seen:
            continue
        seen.add(right)
        found.near_pairs.append((one.keys[left], two.keys[right], distance))
    found.near = len(seen)
    found.near_pairs = found.near_pairs[:_LISTED]
    return found


def _by_distance(left: np.ndarray, right: np.ndarray, distance: np.ndarray) -> Iterable[tuple[int, int, int]]:
    order = np.argsort(distance, kind="stable")
    return zip(left[order].tolist(), right[order].tolist(), distance[order].tolist(), strict=True)
