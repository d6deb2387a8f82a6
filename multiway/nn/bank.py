"""A memory bank: one stored feature for each row of the data.

Z. Wu et al., InstDisc, 2018, arXiv 1805.01978, section 3.1; mixing as its published code and CMC's (Y. Tian et al., 2020,
arXiv 1906.05849) do it. After a step, with f the new feature of row i,

    v_i <- normalise(mix v_i + (1 - mix) f)

Stored features are replaced, never learned: no gradient reaches a bank. n x D in float32 is 656 MB for ImageNet's 1.28 M rows
of 128.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.world import World

__all__ = ["MemoryBank"]


class MemoryBank(nn.Module):
    """n unit vectors, which begin as random directions; in the state dict.

    Every rank holds all of it and is to write the same: the loss stage gathers `sample_index` and features of all ranks.

    Args:
        rows: n, the rows of the training data.
        width: D.
        mix: the old feature's share, in [0, 1); 0 replaces.
    """

    features: Tensor

    def __init__(self, rows: int, width: int, mix: float = 0.5) -> None:
        super().__init__()
        if rows < 1 or width < 1 or not 0.0 <= mix < 1.0:
            raise ValueError(f"a bank of {rows} x {width} with mix {mix}; expected 1 or more each, and a share below 1")
        self.mix = mix
        self.register_buffer("features", F.normalize(torch.randn(rows, width), dim=1))

    def __len__(self) -> int:
        return len(self.features)

    def read(self, index: Tensor) -> Tensor:
        """Stored features of rows: (...) int64, `sample_index` -> (..., D), a copy.

        Raises:
            ValueError: for a number that is no row.
        """
        self._check(index)
        return self.features[index]

    def draw(self, count: int, world: World, rows: int = 0) -> Tensor:
        """Numbers of rows drawn evenly, with replacement, from torch's generator: (count,) int64, for all queries alike, or
        (rows, count), for each of this rank's `rows` by itself. Rank 0 draws for everybody, as it would if it had all rows.

        Evenly over all n, a query's own row included, as the noise density 1 / n supposes.
        """
        drawn = torch.randint(len(self), (rows * world.size, count) if rows else (count,), device=self.features.device)
        if world.size == 1:
            return drawn
        drawn = world.gather(drawn[None])[0]
        return drawn[world.rank :: world.size] if rows else drawn

    @torch.no_grad()
    def write(self, index: Tensor, features: Tensor) -> None:
        """Mix new features into their rows; once per successful step. Of a row that comes several times, the mean is mixed in.

        Args:
            index: (B,) int64, `sample_index`, of all ranks in the same order.
            features: (B, D), not yet normalised.

        Raises:
            ValueError: for shapes that do not fit, or a number that is no row.
        """
        if index.ndim != 1 or features.shape != (len(index), self.features.shape[1]):
            raise ValueError(
                f"numbers are {tuple(index.shape)} and features {tuple(features.shape)}; expected (B,) and "
                f"(B, {self.features.shape[1]})"
            )
        self._check(index)
        rows, place = index.unique(return_inverse=True)
        new = F.normalize(features.to(self.features), dim=1)
        # The mean's direction; a sum has the same. The order of rows does not matter but for rounding.
        total = F.normalize(new.new_zeros(len(rows), new.shape[1]).index_add_(0, place, new), dim=1)
        self.features[rows] = F.normalize(self.mix * self.features[rows] + (1.0 - self.mix) * total, dim=1)

    def _check(self, index: Tensor) -> None:
        """On a CPU, where looking is free, name a number that is no row; a GPU's own assertion names nothing."""
        if index.device.type == "cpu" and index.numel() and not 0 <= int(index.min()) <= int(index.max()) < len(self):
            wrong = int(index.min()) if int(index.min()) < 0 else int(index.max())
            raise ValueError(
                f"sample_index {wrong} is no row of a bank of {len(self)}; a bank is made for one training set: build the method "
                "with its number of rows"
            )
