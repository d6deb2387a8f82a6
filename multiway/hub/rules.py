"""Rules of a layout: some tensors of ours, some of theirs, and the way between them, both ways.

Patterns of names have a `*` for each number that both have in the same place (the block). What may lie between the two: nothing, several
joined in one, one cut in several, dimensions turned, flattened or of size one. Nothing is computed, so that what goes out and comes in
again is equal to the bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from multiway.hub.file import WeightsError

__all__ = [
    "Many",
    "Rule",
    "batch_norms",
    "both",
    "filled",
    "joined",
    "laid_out",
    "leading",
    "one_way",
    "patches",
    "placed",
    "same",
    "shifted",
    "turned",
    "under",
]

Many = Sequence[Tensor]


@dataclass(frozen=True)
class Rule:
    """Some tensors of ours, some of theirs, and the way between them.

    Attributes:
        ours, theirs: patterns.
        read: theirs to ours, in the order of the patterns.
        write: ours to theirs.
        offset: what is added to the last number of ours to make theirs.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    read: Callable[[Many], Many] = lambda tensors: tensors
    write: Callable[[Many], Many] = lambda tensors: tensors
    offset: int = 0

    def numbers(self, name: str) -> tuple[str, ...] | None:
        """The numbers in a name of ours; None if no pattern fits."""
        for pattern in self.ours:
            if found := re.fullmatch(re.escape(pattern).replace(r"\*", r"(\d+)"), name):
                return found.groups()
        return None

    def names(self, numbers: Sequence[str]) -> tuple[list[str], list[str]]:
        """Of both sides, ours first."""
        theirs = [*numbers[:-1], str(int(numbers[-1]) + self.offset)] if numbers else []
        return [filled(pattern, numbers) for pattern in self.ours], [filled(each, theirs) for each in self.theirs]


def filled(pattern: str, numbers: Sequence[str]) -> str:
    """A pattern with numbers for its stars, from the left."""
    for number in numbers:
        pattern = pattern.replace("*", number, 1)
    return pattern


# What may lie between the two.


def same(*pairs: tuple[str, str]) -> list[Rule]:
    """(ours, theirs) that differ in name alone."""
    return [Rule((ours,), (theirs,)) for ours, theirs in pairs]


def both(*pairs: tuple[str, str]) -> list[Rule]:
    """(ours, theirs) of parts with a `weight` and perhaps a `bias`."""
    return same(*((f"{ours}.{each}", f"{theirs}.{each}") for ours, theirs in pairs for each in ("weight", "bias")))


def batch_norms(*pairs: tuple[str, str]) -> list[Rule]:
    """(ours, theirs) of batch normalisations, statistics included."""
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return same(*((f"{ours}.{each}", f"{theirs}.{each}") for ours, theirs in pairs for each in parts))


def joined(ours: str, theirs: str, parts: Sequence[str] = ("query", "key", "value")) -> list[Rule]:
    """A linear map that theirs keeps in parts, one after another: `{}` in `theirs` is the part's name."""
    return [
        Rule(
            (f"{ours}.{each}",),
            tuple(f"{theirs.format(part)}.{each}" for part in parts),
            lambda tensors: [torch.cat(list(tensors))],
            lambda tensors: tensors[0].chunk(len(parts)),
        )
        for each in ("weight", "bias")
    ]


def turned(*pairs: tuple[str, str]) -> list[Rule]:
    """Matrices that theirs multiplies from the other side."""
    return [Rule((ours,), (theirs,), _transposed, _transposed) for ours, theirs in pairs]


def _transposed(tensors: Many) -> Many:
    return [each.T for each in tensors]


def patches(ours: str, theirs: str, colours: int = 3) -> list[Rule]:
    """The patch embedding, a convolution there and a matrix of flat patches here."""

    def unflat(tensors: Many) -> Many:
        side = math.isqrt(tensors[0].shape[1] // colours)
        return [tensors[0].unflatten(1, (colours, side, side))]

    weight = Rule((f"{ours}.weight",), (f"{theirs}.weight",), lambda tensors: [tensors[0].flatten(1)], unflat)
    return [weight, *same((f"{ours}.bias", f"{theirs}.bias"))]


def leading(*pairs: tuple[str, str], dims: int = 2) -> list[Rule]:
    """Tensors before which theirs has dimensions of one, as a class token (1, 1, W)."""

    def read(tensors: Many) -> Many:
        return [tensors[0].reshape(tuple(tensors[0].shape)[dims:])]

    def write(tensors: Many) -> Many:
        return [tensors[0].reshape((1,) * dims + tuple(tensors[0].shape))]

    return [Rule((ours,), (theirs,), read, write) for ours, theirs in pairs]


def placed(ours: str, theirs: str, *, batched: bool = True, first: str = "class_position") -> list[Rule]:
    """One table of positions there, the class token's first; `class_position` and `positions` here.

    Args:
        ours: what ours begin with.
        theirs: the table, (1, 1 + N, W) where `batched`, else (1 + N, W).
        first: name of the first row's.
    """

    def read(tensors: Many) -> Many:
        table = tensors[0].reshape(tensors[0].shape[-2:])
        return [table[0], table[1:]]

    def write(tensors: Many) -> Many:
        table = torch.cat([tensors[0][None], tensors[1]])
        return [table[None] if batched else table]

    return [Rule((f"{ours}{first}", f"{ours}positions"), (theirs,), read, write)]


def laid_out(ours: str, theirs: str, read: Callable[[Tensor], Tensor], write: Callable[[Tensor], Tensor]) -> list[Rule]:
    """One tensor in another shape or order."""
    return [Rule((ours,), (theirs,), lambda tensors: [read(tensors[0])], lambda tensors: [write(tensors[0])])]


def one_way(ours: str, theirs: Sequence[str], read: Callable[..., Tensor]) -> list[Rule]:
    """What several of theirs come to, for layouts that are read and never written."""

    def write(tensors: Many) -> Many:
        raise WeightsError(
            f"{ours} comes from {', '.join(theirs)}, which cannot be told apart again: this layout is not written"
        )

    return [Rule((ours,), tuple(theirs), lambda tensors: [read(*tensors)], write)]


def under(root: str, rules: Iterable[Rule]) -> list[Rule]:
    """Rules for tensors whose names begin with a root there."""
    return [replace(rule, theirs=tuple(root + each for each in rule.theirs)) for rule in rules]


def shifted(rules: Iterable[Rule], offset: int) -> list[Rule]:
    """Rules whose last number is greater there."""
    return [replace(rule, offset=offset) for rule in rules]
