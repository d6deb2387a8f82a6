"""Which pairs of a batch show the same picture or carry the same caption.

Two captions of one picture, or one caption of two pictures, are not each other's negatives. Pairs i and j are *the same*
where they share `image_id` or `text_id`. That relation is a (K, K) matrix, but sums over it need none: the two ids make
groups, and by inclusion and exclusion a sum over "same picture or same caption" is the sum over the picture's group, plus
that over the caption's, minus that over the pairs that share both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from multiway.world import World

__all__ = ["Same", "gather_same"]


@dataclass(frozen=True)
class Same:
    """The relation "shares image_id or text_id" among K pairs.

    Attributes:
        image_id, text_id: (K,) int64, or None where every pair is only the same as itself.
    """

    image_id: Tensor | None = None
    text_id: Tensor | None = None

    def __post_init__(self) -> None:
        for name, ids in (("image_id", self.image_id), ("text_id", self.text_id)):
            if ids is not None and (ids.ndim != 1 or ids.is_floating_point()):
                raise ValueError(
                    f"{name} is {ids.dtype} of shape {tuple(ids.shape)}; expected whole numbers, one per pair"
                )

    def __bool__(self) -> bool:
        """True where there are ids at all."""
        return self.image_id is not None or self.text_id is not None

    def mask(self, start: int, stop: int) -> Tensor:
        """(stop - start, K) bool: rows of the relation, the pair itself included. Needs ids."""
        masks = [ids[start:stop, None] == ids[None, :] for ids in (self.image_id, self.text_id) if ids is not None]
        return masks[0] if len(masks) == 1 else masks[0].logical_or_(masks[1])

    def contains(self, row: Tensor, column: Tensor) -> Tensor:
        """Whether pairs `row[n]` and `column[n]` are the same: (N,) int64 twice -> (N,) bool."""
        same = row == column
        for ids in (self.image_id, self.text_id):
            if ids is not None:
                same = same | (ids[row] == ids[column])
        return same

    @cached_property
    def groups(self) -> list[tuple[Tensor, int]]:
        """(K,) group numbers below K, each with the sign of its sum in the inclusion-exclusion."""
        found = [(_group(ids), 1) for ids in (self.image_id, self.text_id) if ids is not None]
        if len(found) == 2:
            # A pair of group numbers below K as one number below K * K: the pairs that share both ids.
            found.append((_group(found[0][0] * len(found[0][0]) + found[1][0]), -1))
        return found

    @cached_property
    def count(self) -> Tensor:
        """(K,) int64: how many pairs each pair is the same as, itself included. Needs ids."""
        return _sums(torch.ones_like(self.groups[0][0]), self.groups)

    def mean(self, features: Tensor) -> Tensor:
        """(K, D) features -> (K, D): for each pair the mean over the pairs that are the same, without a (K, K) matrix.

        Where a pair has no duplicate the mean is its own feature, bit for bit.
        """
        return _Mean.apply(features, self.groups, self.count[:, None]) if self else features


class _Mean(torch.autograd.Function):
    """Symmetric sums divided by counts; its backward is itself with sum and division exchanged."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, groups: list[tuple[Tensor, int]], count: Tensor) -> Tensor:  # type: ignore[override]
        ctx.groups, ctx.count = groups, count
        return _sums(features, groups) / count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _sums(gradient / ctx.count, ctx.groups), None, None


def _sums(values: Tensor, groups: list[tuple[Tensor, int]]) -> Tensor:
    """Inclusion and exclusion: values (K, ...) summed over each pair's groups."""
    total = torch.zeros_like(values)
    for group, sign in groups:
        total.add_(torch.zeros_like(values).index_add_(0, group, values).index_select(0, group), alpha=sign)
    return total


def _group(ids: Tensor) -> Tensor:
    """Equal ids get equal numbers below K. Sorted search instead of `unique`, whose size would halt a GPU."""
    return torch.searchsorted(ids.sort().values, ids)


def gather_same(image_id: Tensor | None, text_id: Tensor | None, rows: int, world: World) -> Same:
    """The relation among all ranks' pairs, from the ids of this rank's.

    Args:
        image_id, text_id: (rows,) int64 or None; all ranks give them or none does.

    Raises:
        ValueError: if there is not one id for each row.
    """
    gathered = []
    for name, ids in (("image_id", image_id), ("text_id", text_id)):
        if ids is not None and ids.shape != (rows,):
            raise ValueError(
                f"{name} has shape {tuple(ids.shape)}; expected one id for each of this rank's {rows} rows"
            )
        gathered.append(None if ids is None else world.gather(ids, "none"))
    return Same(*gathered)
