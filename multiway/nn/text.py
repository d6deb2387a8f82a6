"""Text to tokens to a vector: CLIP's causal text tower (arXiv:2103.00020, section 2.4) and BERT (Devlin et al., 2019,
arXiv:1810.04805) from one module.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.config import LATER
from multiway.nn.buckets import length_groups, put_together
from multiway.nn.pool import Tower, eos_positions, last_positions, masked_mean, take
from multiway.nn.transformer import Activation, Transformer, TransformerConfig, init_weights

__all__ = ["BERT_BASE", "TextConfig", "TextEmbed", "TextTransformer", "resize_text_positions"]


@dataclass(frozen=True)
class TextConfig:
    """Sizes and choices of a text transformer.

    Attributes:
        vocabulary: number of token ids; 0 is left to the data.
        context: greatest number of tokens.
        width, layers, heads, mlp_ratio, activation, norm, epsilon, cross_width, cross_layers, dropout,
            attention_dropout, drop_path, checkpoint: of the blocks; see `TransformerConfig`.
        causal: CLIP and language models; BERT is not.
        pool: `eos` the end token's position, `last` the last real token, `class` the first, `mean` over real tokens.
        eos_id: id of the end token; None takes the greatest id of each row, as OpenAI's CLIP did.
        types: number of segment types (BERT: 2); 0 for none.
        embedding_norm: BERT's norm and dropout of the embedding.
        buckets: groups of like length that a batch is read in, each padded to its own longest (`nn/buckets.py`): the same numbers,
            for less work where lengths are uneven. 1 pads all to the longest. Not with a memory, nor while recording.
    """

    vocabulary: int = 0
    context: int = 32
    width: int = 128
    layers: int = 4
    heads: int = 2
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    causal: bool = True
    pool: Literal["eos", "last", "class", "mean"] = "eos"
    eos_id: int | None = None
    norm: Literal["pre", "post"] = "pre"
    epsilon: float = 1e-5
    types: int = 0
    embedding_norm: bool = False
    cross_width: int | None = None
    cross_layers: tuple[int, ...] | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    checkpoint: bool = False
    buckets: int = field(default=1, metadata=LATER)


BERT_BASE = TextConfig(
    vocabulary=30522,
    context=512,
    width=768,
    layers=12,
    heads=12,
    causal=False,
    pool="class",
    norm="post",
    epsilon=1e-12,
    types=2,
    embedding_norm=True,
    dropout=0.1,
    attention_dropout=0.1,
)
"""BERT-base uncased (Devlin et al., 2019, section 3), which many methods start from or cut in two."""


class TextEmbed(nn.Module):
    """Token, position and, where there are any, segment embeddings.

    Raises:
        ValueError: if the vocabulary is open.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        if config.vocabulary < 1:
            raise ValueError(f"vocabulary is {config.vocabulary}; set it to the tokeniser's number of ids")
        self.context = config.context
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.context, config.width))
        self.types = nn.Embedding(config.types, config.width) if config.types else None
        self.norm: nn.Module = nn.Identity()
        if config.embedding_norm:
            self.norm = nn.Sequential(nn.LayerNorm(config.width, config.epsilon), nn.Dropout(config.dropout))
        init_weights(self)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, ids: Tensor, types: Tensor | None = None, past: int = 0) -> Tensor:
        """(B, L) ids, and (B, L) segment types (0 by default) -> (B, L, W); the first id is at position `past`.

        Raises:
            ValueError: if the text is longer than the context.
        """
        length = past + ids.shape[1]
        if length > self.context:
            raise ValueError(
                f"text of {length} tokens for a context of {self.context}; truncate it in the tokeniser, or build the "
                f"model with context={length}"
            )
        places = self.positions[past:length]
        if self.types is not None:
            places = places + (self.types.weight[0] if types is None else self.types(types))
        return self.norm(self.words(ids) + places)


def resize_text_positions(positions: Tensor, length: int) -> Tensor:
    """(L, W) positions of texts, interpolated linearly to (`length`, W), as `open_clip` does between CLIPA's stages."""
    if len(positions) == length:
        return positions
    resized = F.interpolate(positions.T[None].float(), size=length, mode="linear", align_corners=False)
    return resized[0].T.to(positions.dtype)


class TextTransformer(nn.Module):
    """Embedding, blocks, pool.

    Attributes:
        width, token_width: W of `pooled` and of `tokens`, the same here.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.width = self.token_width = config.width
        self.embed = TextEmbed(config)
        self.transformer = Transformer(TransformerConfig.of(config))

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        types: Tensor | None = None,
        causal: bool | None = None,
        tokens: bool = True,
        record: MutableMapping[str, Tensor] | None = None,
    ) -> Tower:
        """Encode.

        Args:
            ids: (B, L), padded on the right to the longest row.
            mask: (B, L) bool, True at real tokens; None when all are.
            memory, memory_mask: (B, M, cross_width) and (B, M), for blocks that attend to a picture's tokens.
            types: (B, L) segment types.
            causal: overrides the config's.
            tokens: whether all last tokens are wanted; if only the pooled one is, the last block computes no other
                (the result is the same).
            record: receives hidden states and attention maps by path; see `Transformer.forward`.

        Returns:
            pooled (B, W) and tokens (B, L, W); those of padding mean nothing.
        """
        if self.config.buckets > 1 and mask is not None and memory is None and record is None:
            return self._in_buckets(ids, mask, types, causal, tokens)
        at = self._position(ids, mask)
        wanted = None if tokens else at
        last = self.transformer(
            self.embed(ids, types), mask, memory, memory_mask, at=wanted, causal=causal, record=record
        )
        return self._pooled(last, at, mask, tokens)

    @staticmethod
    def _pooled(last: Tensor, at: Tensor | None, mask: Tensor | None, tokens: bool) -> Tower:
        """The last tokens, all or those at `at` alone, and what stands for the text."""
        if at is None:
            return Tower(masked_mean(last, mask), last)
        return Tower(take(last, at) if tokens else last[:, 0], last)

    def _in_buckets(self, ids: Tensor, mask: Tensor, types: Tensor | None, causal: bool | None, tokens: bool) -> Tower:
        """What `forward` gives, of rows of like length together."""
        groups = length_groups(mask.sum(1).clamp(min=1), self.config.buckets)
        towers = []
        for rows, length in groups:
            some = None if types is None else types[rows, :length]
            at = self._position(ids[rows, :length], mask[rows, :length])
            last = self.transformer(
                self.embed(ids[rows, :length], some),
                mask[rows, :length],
                at=None if tokens else at,
                causal=causal,
            )
            towers.append(self._pooled(last, at, mask[rows, :length], tokens))
        pooled = put_together([tower.pooled for tower in towers], groups)
        length = ids.shape[1] if tokens or self.config.pool == "mean" else 1
        return Tower(pooled, put_together([tower.tokens for tower in towers], groups, length))

    def _position(self, ids: Tensor, mask: Tensor | None) -> Tensor | None:
        """(B,) the token that stands for the text; None where all do."""
        pool = self.config.pool
        if pool == "mean":
            return None
        if pool == "eos":
            return eos_positions(ids, self.config.eos_id)
        if pool == "last" and mask is not None:
            return last_positions(mask)
        return torch.full((ids.shape[0],), 0 if pool == "class" else ids.shape[1] - 1, device=ids.device)
