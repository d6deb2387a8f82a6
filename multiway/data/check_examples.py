"""Look through one split of annotated examples before hours are spent on it: how many there are, and what cannot be read.

What `check.py` is for pictures with captions. The reader has looked at every row when the split is opened; here every picture is
decoded once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from multiway.data.examples import Asked, Chosen, Example, Examples, HasNotes, Judged, Pointed
from multiway.data.rejected import Rejected
from multiway.data.source import BadRow

__all__ = ["ExamplesReport", "check_examples"]


@dataclass
class ExamplesReport:
    """What one split holds.

    Attributes:
        data, split, kind: of the examples.
        examples: that were kept.
        withheld: of these, how many come without an answer.
        pictures: that they point at.
        groups: examples by their group; only where there are groups.
        labels: judged examples by class.
        words: (least, greatest) number of words of a text.
        rejected: rows that were left out on opening.
        unreadable: pictures that cannot be decoded, by the first example about each.
        unreadable_examples: that are about them.
        notes: what the data say of themselves: that they are a part of what was published.
    """

    data: str
    split: str
    kind: str
    examples: int = 0
    withheld: int = 0
    pictures: int = 0
    groups: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    words: tuple[int, int] = (0, 0)
    rejected: list[str] = field(default_factory=list)
    unreadable: list[Rejected] = field(default_factory=list)
    unreadable_examples: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def findings(self) -> list[str]:
        """What deserves attention, a sentence each; empty when all is well."""
        found = [f"{len(self.rejected):,} rows were left out on opening"] if self.rejected else []
        if self.unreadable:
            found.append(f"{len(self.unreadable):,} pictures ({self.unreadable_examples:,} examples) cannot be read")
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"task": "data check", "findings": self.findings, **asdict(self)}


def check_examples(
    examples: Examples[Example], progress: Callable[[int], object] = lambda pictures: None
) -> ExamplesReport:
    """Look through one split.

    Args:
        examples: opened.
        progress: called with the number of pictures that were just decoded.
    """
    report = ExamplesReport(examples.name, examples.split, examples.kind, len(examples))
    groups: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    about: dict[int, list[str]] = {}
    lengths: list[int] = []
    for number in range(len(examples)):
        example = examples.example(number)
        groups[example.group] += 1
        lengths.append(len(example.text.split()))
        report.withheld += _withheld(example)
        if isinstance(example, Judged) and example.label >= 0:
            labels[examples.labels[example.label]] += 1
        for picture in dict.fromkeys(example.pictures):
            about.setdefault(picture, []).append(example.where or example.key)
    report.pictures = len(about)
    report.groups = {name: count for name, count in sorted(groups.items()) if name}
    report.labels = dict(sorted(labels.items()))
    report.words = (min(lengths, default=0), max(lengths, default=0))
    lost: set[str] = set()
    for picture, places in about.items():
        try:
            examples.pictures.image(picture)
        except BadRow as error:
            report.unreadable.append(Rejected(places[0], str(error)))
            lost.update(places)
        progress(1)
    report.unreadable_examples = len(lost)
    report.rejected = [str(each) for each in examples.rejected]
    report.notes = list(examples.notes) if isinstance(examples, HasNotes) else []
    return report


def _withheld(example: Example) -> bool:
    """Whether what is asked for is not told."""
    match example:
        case Asked():
            return not example.answers
        case Judged() | Chosen():
            return example.label < 0
        case Pointed():
            return not example.boxes
    return False
