"""Heads: what turns last tokens into guesses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.nn.transformer import init_weights

__all__ = ["MaskedWordHead"]


class MaskedWordHead(nn.Module):
    """BERT's head for masked words (Devlin et al., 2019, arXiv 1810.04805): a layer, then the word embeddings again.

    The output matrix is the embedding's own (tied), passed in at every call, so that it exists once.

    Args:
        width: W of a token.
        vocabulary: V.
        epsilon: of LayerNorm.
    """

    def __init__(self, width: int, vocabulary: int, epsilon: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, epsilon)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        init_weights(self)

    def forward(self, tokens: Tensor, words: Tensor) -> Tensor:
        """(P, W) tokens and the (V, W) word embeddings -> (P, V) logits."""
        return F.linear(self.norm(F.gelu(self.dense(tokens))), words, self.bias)
