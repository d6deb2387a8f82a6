"""Look through all of a data set before hours are spent on it: what is there, what cannot be read, what leaks.

Every picture is decoded once, rows of the same picture together. Pictures and captions that two splits share are
found exactly (hash of the pixels) and nearly (difference hash).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from multiway.data.check_report import CheckReport, Overlap, SplitReport
from multiway.data.duplicates import NEAR, close_pairs, difference_hash, pixel_hash
from multiway.data.examples import HasNotes
from multiway.data.rejected import Rejected
from multiway.data.source import BadRow, Source

__all__ = ["check", "notes_of"]

_LISTED = 50  # pairs kept of each kind of overlap; the count is of all


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
    name = splits[0].name if splits else ""
    return CheckReport(name, reports, overlaps, list(rejected), min_side, near, notes_of(splits))


def notes_of(sources: Sequence[Source]) -> list[str]:
    """What several splits say of themselves, each with its name."""
    return [f"{each.split}: {note}" for each in sources if isinstance(each, HasNotes) for note in each.notes]


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
