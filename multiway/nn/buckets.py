"""Rows of a padded batch in groups of like length, so that little is computed for padding.

A batch is padded to its longest row. Where one row is long and most are short, most of what a transformer computes is padding. Rows do
not see one another, so that they may be read in groups, each padded to its own longest, and put back in their order: the same
numbers for less work. Which rows meet in the loss is not touched.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["length_groups", "put_together"]


def length_groups(lengths: Tensor, groups: int) -> list[tuple[Tensor, int]]:
    """Share rows out so that as few tokens as possible are computed.

    Args:
        lengths: (B,) int64, B of 1 or more. On a GPU they are waited for.
        groups: at most so many.

    Returns:
        For each group its rows, int64, and the longest of their lengths; short groups first.
    """
    order = torch.argsort(lengths, stable=True)
    distinct, counts = np.unique(lengths.cpu().numpy(), return_counts=True)
    ends = np.cumsum(counts)
    begins = ends - counts
    # cost[i, j]: tokens of a group from the i-th distinct length to the j-th; least[j]: of all rows up to there, in so many groups.
    cost = np.where(begins[:, None] < ends[None, :], (ends[None, :] - begins[:, None]) * distinct[None, :], np.inf)
    least, cuts = cost[0], [np.zeros(len(distinct), dtype=np.int64)]
    for _ in range(min(groups, len(distinct)) - 1):
        with_one_more = np.concatenate([[np.inf], least[:-1]])[:, None] + cost
        cuts.append(with_one_more.argmin(0))
        least = with_one_more.min(0)
    found, last = [], len(distinct) - 1
    for cut in reversed(cuts):
        first = int(cut[last])
        found.append((order[begins[first] : ends[last]], int(distinct[last])))
        last = first - 1
    return found[::-1]


def put_together(parts: list[Tensor], groups: list[tuple[Tensor, int]], length: int | None = None) -> Tensor:
    """What was computed of each group, as one batch in the rows' order.

    Args:
        parts: (b, W) of each group; with `length` (b, l, W), filled up with zeros to that many tokens.
        groups: as `length_groups` gave them.
        length: of the batch's rows.
    """
    if length is not None:
        parts = [F.pad(part, (0, 0, 0, length - part.shape[1])) for part in parts]
    place = torch.cat([rows for rows, _ in groups]).argsort()
    return torch.cat(parts)[place]
