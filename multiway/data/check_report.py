"""What a look through all of a data set found (`check.py`): by split, between splits, and in sentences."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from multiway.data.rejected import Rejected

__all__ = ["CheckReport", "Overlap", "SplitReport"]


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
        notes: what the data themselves say beside every figure, with the split: that they are a part of what was published.
    """

    data: str
    splits: dict[str, SplitReport]
    overlaps: list[Overlap]
    rejected: list[Rejected]
    min_side: int
    near: int
    notes: list[str] = field(default_factory=list)

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
            "notes": self.notes,
            "min_side": self.min_side,
            "near": self.near,
        }
