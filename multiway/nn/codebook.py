"""A codebook of unit vectors that follows what is looked up in it.

van den Oord et al., Neural Discrete Representation Learning, 2017, arXiv 1711.00937 (appendix A.1: moving averages instead of
a gradient); the vectors are normalised, so that the nearest is the one with the greatest cosine, and codes that nobody uses
are revived from the batch: Yu et al., ViT-VQGAN, 2022, arXiv 2110.04627, section 3.2; Peng et al., BEiT v2, 2022, arXiv
2208.06366, section 3.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Codebook"]

_KMEANS = 10  # iterations over the first batch


class Codebook(nn.Module):
    """K codes on the unit sphere.

    Args:
        codes: K.
        width: D.
        decay: of the moving averages.
        dead: a code whose moving share of the vectors falls below this multiple of 1 / K is replaced.
    """

    codes: Tensor
    share: Tensor
    started: Tensor

    def __init__(self, codes: int, width: int, decay: float = 0.99, dead: float = 0.03) -> None:
        super().__init__()
        if codes < 2 or not 0 <= decay < 1 or dead < 0:
            raise ValueError(
                f"codebook of {codes} codes, decay {decay}, dead {dead}; expected 2 or more, [0, 1), and 0 or more"
            )
        self.decay, self.dead = decay, dead
        self.register_buffer("codes", F.normalize(torch.randn(codes, width), dim=-1))
        self.register_buffer("share", torch.full((codes,), 1.0 / codes))
        self.register_buffer("started", torch.tensor(False))

    def assign(self, vectors: Tensor) -> Tensor:
        """(..., D) -> (...) int64 number of the nearest code."""
        return (F.normalize(vectors.float(), dim=-1) @ self.codes.T).argmax(-1)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise.

        Args:
            vectors: (..., D) on the unit sphere.

        Returns:
            (..., D) the codes, through which gradients pass straight to `vectors`; and (...) int64 their numbers.
        """
        numbers = self.assign(vectors)
        codes = self.codes[numbers].to(vectors.dtype)
        return vectors + (codes - vectors).detach(), numbers

    @torch.no_grad()
    def follow(self, vectors: Tensor) -> None:
        """Move the codes towards the vectors that chose them; once per successful step, with those of all ranks.

        The first call places the codes by k-means. Nothing here is random, so that ranks stay equal.

        Args:
            vectors: (P, D).
        """
        vectors = F.normalize(vectors.float(), dim=-1)
        if not self.started:
            self._place(vectors)
        numbers = self.assign(vectors)
        sums, counts = self._sums(vectors, numbers)
        used = counts > 0
        moved = F.normalize(torch.lerp(F.normalize(sums, dim=-1), self.codes, self.decay), dim=-1)
        self.codes.copy_(torch.where(used[:, None], moved, self.codes))
        self.share.mul_(self.decay).add_(counts / len(vectors), alpha=1 - self.decay)
        self._revive(vectors, numbers)

    def _sums(self, vectors: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """(K, D) sums of the vectors that chose each code, and (K,) how many did."""
        sums = torch.zeros_like(self.codes).index_add_(0, numbers, vectors)
        return sums, torch.bincount(numbers, minlength=len(self.codes)).to(sums.dtype)

    def _place(self, vectors: Tensor) -> None:
        """Spherical k-means from evenly spaced vectors."""
        every = torch.linspace(0, len(vectors) - 1, len(self.codes), device=vectors.device).long()
        self.codes.copy_(vectors[every])
        for _ in range(_KMEANS):
            sums, counts = self._sums(vectors, self.assign(vectors))
            self.codes.copy_(torch.where(counts[:, None] > 0, F.normalize(sums, dim=-1), self.codes))
        self.started.fill_(True)

    def _revive(self, vectors: Tensor, numbers: Tensor) -> None:
        """Dead codes move to the vectors that are worst served."""
        gone = (self.share < self.dead / len(self.codes)).nonzero().flatten()
        gone = gone[: len(vectors)]
        if not len(gone):
            return
        far = (vectors * self.codes[numbers]).sum(-1).argsort(stable=True)[: len(gone)]
        self.codes[gone] = vectors[far]
        self.share[gone] = 1.0 / len(self.codes)
