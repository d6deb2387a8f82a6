"""Where every tensor of a checkpoint went: what each load ends in.

A tensor of theirs is taken, set aside by the layout with a reason (position numbers, a classifier, a momentum twin), or left over. A
tensor of ours is filled, or missing. What is left over or missing is an error, unless the caller named it (`allow`): then the first
stays in the file, the second at its random start, and the report says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from multiway.hub.file import WeightsError

__all__ = ["Accounting", "Report", "compiled", "some"]

_SHOWN = 8


@dataclass(frozen=True)
class Report:
    """What became of the tensors of both sides, by name.

    Attributes:
        source: file or folder.
        kind: what it holds: a class of the other library, or a release.
        matched: theirs that have the same name here.
        renamed: theirs that have another name here, alone or joined, cut or turned.
        filled: how many of ours they fill.
        resized: ours whose positions were interpolated to another grid.
        new: ours that theirs lacks, at their random start, as was allowed.
        left: theirs without a use here, left in the file, as was allowed.
        aside: theirs that the layout knows and this model does without, by reason.
    """

    source: str
    kind: str
    matched: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()
    filled: int = 0
    resized: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    aside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        """A line for people, and one for each thing that is not simply taken."""
        lines = [
            f"{self.kind}: {len(self.matched) + len(self.renamed)} tensors taken, {len(self.matched)} by the same name and "
            f"{len(self.renamed)} renamed, joined or cut; they fill {self.filled} of ours"
        ]
        lines += [f"{len(names)} left behind, {why}: {some(names, 3)}" for why, names in self.aside.items()]
        for names, what in (
            (self.resized, "resized to another grid"),
            (self.new, "missing there and new here, as allowed"),
            (self.left, "left over there, as allowed"),
        ):
            if names:
                lines.append(f"{len(names)} {what}: {some(names, 3)}")
        return "\n  ".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Counts, and the names of all that was not simply taken."""
        return {
            "source": self.source, "kind": self.kind, "matched": len(self.matched), "renamed": len(self.renamed),
            "filled": self.filled, "resized": list(self.resized), "new": list(self.new), "left": list(self.left),
            "aside": {why: list(names) for why, names in self.aside.items()},
        }  # fmt: skip


class Accounting:
    """A checkpoint's tensors while they are being taken.

    Args:
        theirs: by name.
        kind: what they are said to be, for messages.
        source: file or folder.
        allow: regular expressions over names of either side.
    """

    def __init__(self, theirs: Mapping[str, Tensor], kind: str, source: str = "", allow: Sequence[str] = ()) -> None:
        self.theirs, self.kind, self.source, self.patterns = theirs, kind, source, tuple(allow)
        self._left = dict(theirs)
        self._aside: dict[str, list[str]] = {}
        self._missing: list[str] = []
        self._new: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self) -> list[str]:
        """Of what has neither been taken nor set aside."""
        return list(self._left)

    def take(self, name: str) -> Tensor:
        """A tensor, once.

        Raises:
            WeightsError: if it is not there.
        """
        if name not in self._left:
            raise self._lacking([name])
        return self._left.pop(name)

    def take_all(self, names: Sequence[str], ours: Sequence[str]) -> list[Tensor] | None:
        """Several of theirs that make some of ours; None if one is missing, which is remembered until `close`."""
        lacking = [name for name in names if name not in self._left]
        if not lacking:
            return [self._left.pop(name) for name in names]
        if all(self._allowed(name) for name in ours):
            self._new += ours
        else:
            self._missing += lacking
        return None

    def unknown(self, ours: str) -> None:
        """A tensor of ours that the layout has no counterpart of; allowed, or an error at `close`."""
        if self._allowed(ours):
            self._new.append(ours)
        else:
            self._missing.append(f"{ours} (its name here)")

    def set_aside(self, names: Iterable[str], why: str) -> None:
        """What this model does without, and why."""
        for name in names:
            del self._left[name]
            self._aside.setdefault(why, []).append(name)

    def aside(self, why: str) -> list[str]:
        """What was set aside for a reason."""
        return self._aside.get(why, [])

    def close(self, ours: Collection[str]) -> Report:
        """The end of taking.

        Args:
            ours: names of what was made of theirs.

        Raises:
            WeightsError: if a tensor is missing or left over that was not allowed, or a pattern fits nothing.
        """
        compiled(self.patterns, [*self.theirs, *ours, *self._new, *self._missing], "--allow")
        if self._missing:
            raise self._lacking(self._missing)
        surplus = [name for name in self._left if not self._allowed(name)]
        if surplus:
            raise WeightsError(
                f"the checkpoint has tensors that a {self.kind} does not: {some(sorted(surplus), _SHOWN)}; if they may stay unused, "
                "name them: --allow 'PATTERN'"
            )
        own = set(ours)
        taken = [name for name in self.theirs if name not in self._left and not self._is_aside(name)]
        return Report(
            self.source,
            self.kind,
            tuple(name for name in taken if name in own),
            tuple(name for name in taken if name not in own),
            len(own),
            new=tuple(self._new),
            left=tuple(self._left),
            aside={why: tuple(names) for why, names in self._aside.items()},
        )

    def _is_aside(self, name: str) -> bool:
        return any(name in names for names in self._aside.values())

    def _allowed(self, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.patterns)

    def _lacking(self, names: Sequence[str]) -> WeightsError:
        return WeightsError(
            f"the checkpoint lacks the tensor {some(names, _SHOWN)}; is it a {self.kind}? What may start at random is named by what it "
            "is called here: --allow 'PATTERN'"
        )


def some(names: Sequence[str], count: int) -> str:
    """The first few, for messages."""
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")


def compiled(patterns: Sequence[str], names: Collection[str], option: str) -> list[re.Pattern[str]]:
    """Regular expressions of an option.

    Args:
        patterns: as given.
        names: of the tensors of both sides.
        option: what the command line calls it.

    Raises:
        WeightsError: if one is no expression, or fits no name.
    """
    found = []
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise WeightsError(f"{option} {pattern!r} is no regular expression: {error}") from error
        if not any(expression.search(name) for name in names):
            raise WeightsError(
                f"{option} {pattern!r} fits no tensor of either side; they are named like {some(list(names), 4)}"
            )
        found.append(expression)
    return found
