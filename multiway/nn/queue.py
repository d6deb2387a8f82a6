"""A queue of features: the last K rows that a slowly moving encoder has made, first in, first out.

He et al., Momentum Contrast, 2020, arXiv 1911.05722, section 3.1. The published code asks that the batch divide the
queue; here any batch fits any queue, by writing around the end.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FeatureQueue"]


class FeatureQueue(nn.Module):
    """K rows of several things at once: features by name, and ids beside them. All of it is in the state dict.

    It begins *empty*: rows that were never written are not handed out. The published code begins with random directions,
    which are candidates that mean nothing; they cost nothing there but a few steps, and nothing at all here.

    Args:
        rows: K; 0 makes a queue that keeps nothing.
        features: width D of each kind of feature, by name.
        ids: names of int64 ids kept for each row.
    """

    head: Tensor
    filled: Tensor

    def __init__(self, rows: int, features: Mapping[str, int], ids: tuple[str, ...] = ()) -> None:
        super().__init__()
        if rows < 0:
            raise ValueError(f"a queue of {rows} rows; expected 0 or more")
        self.rows = rows
        self.features, self.ids = tuple(features), ids
        for name, width in features.items():
            self.register_buffer(name, torch.zeros(rows, width))
        for name in ids:
            self.register_buffer(name, torch.full((rows,), -1, dtype=torch.int64))
        # Tensors, not Python numbers, so that they are saved and restored with the rest.
        self.register_buffer("head", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def read(self) -> dict[str, Tensor]:
        """The rows written so far, by name: (n, D) features and (n,) ids, n at most K, in no particular order."""
        count = int(self.filled)
        return {name: getattr(self, name)[:count].clone() for name in (*self.features, *self.ids)}

    def __len__(self) -> int:
        return int(self.filled)

    @torch.no_grad()
    def push(self, rows: Mapping[str, Tensor]) -> None:
        """Write n new rows over the oldest. Of more than K rows the last K stay.

        Args:
            rows: for every name (n, D) features, which are normalised here, or (n,) ids.

        Raises:
            ValueError: if a name is missing or the numbers of rows differ.
        """
        names = (*self.features, *self.ids)
        missing = [name for name in names if name not in rows]
        counts = {len(rows[name]) for name in names if name in rows}
        if missing or len(counts) != 1:
            raise ValueError(
                f"a push needs equal numbers of rows for {', '.join(names)}; missing {missing}, rows {counts}"
            )
        if self.rows == 0:
            return
        count = counts.pop()
        kept = min(count, self.rows)
        # A push longer than the queue leaves its last rows, where writing one by one would have left them.
        first = (int(self.head) + count - kept) % self.rows
        places = (first + torch.arange(kept, device=self.head.device)) % self.rows
        for name in self.features:
            own = getattr(self, name)
            own[places] = F.normalize(rows[name][-kept:].to(own), dim=-1)
        for name in self.ids:
            getattr(self, name)[places] = rows[name][-kept:]
        self.head.fill_((int(self.head) + count) % self.rows)
        self.filled.fill_(min(self.rows, int(self.filled) + count))
