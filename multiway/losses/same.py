"""Which pairs of a batch show the same picture or carry the same caption.

Two captions of one picture, or one caption of two pictures, are not each other's negatives. Pairs i and j are *the same*
where they share `image_id` or `text_id`. That relation is a (K, K) matrix, but sums over it need none: the two ids make
groups, and by inclusion and exclusion a sum over "same picture or same caption" is the sum over the picture's group, plus
that over the caption's, minus that over the pairs that share both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Same"]


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
                raise ValueError(f"{name} is {ids.dtype} of shape {tuple(ids.shape)}; expected whole numbers, one per pair")

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

    def groups(self) -> list[tuple[Tensor, int]]:
        """(K,) group numbers below K, each with the sign of its sum in the inclusion-exclusion."""
        found = [(_group(ids), 1) for ids in (self.image_id, self.text_id) if ids is not None]
        if len(found) == 2:
            # A pair of group numbers below K as one number below K * K: the pairs that share both ids.
            found.append((_group(found[0][0] * len(found[0][0]) + found[1][0]), -1))
        return found

    def count(self) -> Tensor:
        """(K,) int64: how many pairs each pair is the same as, itself included. Needs ids."""
        total = 0
        for group, sign in self.groups():
            total = total + sign * torch.zeros_like(group).index_add_(0, group, torch.ones_like(group))[group]
        return total

    def mean(self, features: Tensor) -> Tensor:
        """(K, D) features -> (K, D): for each pair the mean over the pairs that are the same, without a (K, K) matrix.

        Where a pair has no duplicate the mean is its own feature, bit for bit.
        """
        if not self:
            return features
        total = 0
        for group, sign in self.groups():
            total = total + sign * torch.zeros_like(features).index_add(0, group, features)[group]
        return total / self.count()[:, None]


def _group(ids: Tensor) -> Tensor:
    """Equal ids get equal numbers below K. Sorted search instead of `unique`, whose size would halt a GPU."""
    return torch.searchsorted(ids.sort().values, ids)
