"""Attentional poolers: a few learned queries read a whole sequence.

CoCa (Yu et al., 2022, arXiv 2205.01917, section 3.2) pools the picture's tokens with 256 queries for the decoder and, over
those or over the tokens again, with one for the contrastive embedding. SigLIP (Zhai et al., 2023, arXiv 2303.15343) takes the
multi-head attention pooling of Zhai et al., "Scaling Vision Transformers" (2022, arXiv 2106.04560, section 2.2): one query,
then a feed-forward part around which the result is carried on. Both derive from the Set Transformer (Lee et al., 2019, arXiv
1810.00825, section 3.2), with Q learned and X the sequence:

    H = Attention(norm(Q), norm(X)),     pooled = norm(H)   or   H + MLP(norm(H))
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from multiway.nn.attention import Attention, Visibility
from multiway.nn.block import Activation, FeedForward
from multiway.nn.transformer import init_weights

__all__ = ["AttentionalPooler"]


class AttentionalPooler(nn.Module):
    """Learned queries that attend to a memory: (B, M, memory_width) to (B, queries, W).

    A cascade is a pooler over the output of another, whose width is then the `memory_width`. By default the norms are
    CoCa's as `open_clip` has them (of queries and memory, none of the output); SigLIP's head has no norm before the attention
    and a feed-forward part after it: `AttentionalPooler(width, 1, heads, query_norm=False, memory_norm=False, mlp=4 * width)`.

    Args:
        width: W, of the queries and of the result.
        queries: how many; each becomes one token of the result.
        heads: of the attention; must divide the width.
        memory_width: of the tokens that are read; W by default.
        mlp: hidden width of a feed-forward part after the attention, normed before and added to what went in; None for none.
        activation: of that part.
        query_norm, memory_norm: LayerNorm on the queries and on the memory before they meet.
        output_norm: LayerNorm on the result.
        epsilon: of the norms.

    Raises:
        ValueError: if there is no query, or the heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        queries: int,
        heads: int,
        memory_width: int | None = None,
        *,
        mlp: int | None = None,
        activation: Activation = "gelu",
        query_norm: bool = True,
        memory_norm: bool = True,
        output_norm: bool = False,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        if queries < 1:
            raise ValueError(f"a pooler of {queries} queries reads nothing; give it at least 1")
        memory_width = memory_width or width
        self.width = width
        self.attention = Attention(width, heads, memory_width=memory_width)

        def norm(wanted: bool, size: int) -> nn.Module:
            return nn.LayerNorm(size, epsilon) if wanted else nn.Identity()

        self.query_norm = norm(query_norm, width)
        self.memory_norm = norm(memory_norm, memory_width)
        self.mlp_norm = norm(mlp is not None, width)
        self.mlp = None if mlp is None else FeedForward(width, mlp, activation)
        self.output_norm = norm(output_norm, width)
        init_weights(self)
        # Of unit length, not unit variance: without a norm on them, larger queries would start with one-hot attention.
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)

    def forward(
        self,
        memory: Tensor,
        mask: Tensor | None = None,
        *,
        record: MutableMapping[str, Tensor] | None = None,
        path: str = "pooler",
    ) -> Tensor:
        """Pool.

        Args:
            memory: (B, M, memory_width).
            mask: (B, M) bool, True at tokens that are real; None when all are. A row without any pools nothing and gives the
                same vector whatever its tokens hold.
            record: receives the attention map (B, heads, queries, M) under `path`.

        Returns:
            (B, queries, W).
        """
        queries = self.query_norm(self.queries).to(memory.dtype).expand(memory.shape[0], -1, -1)
        visibility = Visibility.of(mask, memory.shape[1], memory.device)
        pooled = self.attention(queries, self.memory_norm(memory), visibility, record=record, path=path)
        if self.mlp is not None:
            pooled = pooled + self.mlp(self.mlp_norm(pooled))
        return self.output_norm(pooled)
