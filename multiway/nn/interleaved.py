"""A decoder whose attention to a memory is a block by itself, with a feed-forward part of its own.

In the original transformer (Vaswani et al., 2017, arXiv 1706.03762, section 3.1) a decoder's block attends to itself, to the
memory, and feeds forward once. The multimodal decoder of `open_clip`'s CoCa lays two blocks one after the other instead, each
with a feed-forward part, and norms the memory in every second one:

    x <- x + SelfAttention(norm(x));          x <- x + MLP(norm(x))
    x <- x + Attention(norm(x), norm(memory));  x <- x + MLP'(norm(x))
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multiway.nn.attention import Attention, Visibility
from multiway.nn.block import Block, FeedForward, TransformerConfig
from multiway.nn.cache import BlockCache, Cache, KeyValues
from multiway.nn.transformer import init_weights

__all__ = ["CrossBlock", "Interleaved"]


class CrossBlock(nn.Module):
    """Attention to a memory that is normed first, then a feed-forward part; a norm before each."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, memory = config.width, config.cross_width or config.width
        self.norm = nn.LayerNorm(width, config.epsilon)
        self.memory_norm = nn.LayerNorm(memory, config.epsilon)
        self.attention = Attention(
            width, config.heads, memory_width=memory, bias=config.qkv_bias, dropout=config.attention_dropout
        )
        self.mlp_norm = nn.LayerNorm(width, config.epsilon)
        self.mlp = FeedForward(width, config.hidden, config.activation)

    def forward(self, tokens: Tensor, memory: Tensor | None, cache: KeyValues | None = None) -> Tensor:
        """(B, N, W) tokens over a (B, M, memory width) memory, which a filled cache stands in for -> (B, N, W)."""
        seen = None if memory is None else self.memory_norm(memory)
        tokens = tokens + self.attention(self.norm(tokens), seen, cache=cache)
        return tokens + self.mlp(self.mlp_norm(tokens))  # type: ignore[no-any-return]


class Interleaved(nn.Module):
    """A stack of such pairs of blocks. Called as `Transformer` is.

    Args:
        config: of the blocks; `layers` counts pairs. Blocks have norms before and no dropout but that of attention.

    Raises:
        ValueError: for norms after the blocks, or layer scale, which `open_clip`'s decoder knows and this one does not.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if config.norm != "pre" or config.layer_scale is not None or config.dropout or config.drop_path:
            raise ValueError(
                "interleaved blocks have norms before their parts, no layer scale, dropout or drop path; set norm='pre' and "
                "leave the others at their defaults"
            )
        self.config = config
        self.blocks = nn.ModuleList(Block(replace(config, cross_width=None)) for _ in range(config.layers))
        self.crosses = nn.ModuleList(CrossBlock(config) for _ in range(config.layers))
        self.norm: nn.Module = nn.LayerNorm(config.width, config.epsilon) if config.final_norm else nn.Identity()
        init_weights(self)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        *,
        at: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Run all blocks.

        Args:
            tokens: (B, N, W).
            mask: (B, N) bool, True at real tokens; None when all are.
            memory: (B, M, cross_width); None once the cache holds it.
            at: (B,) the one position per row that is wanted of the last pair.
            cache: keys and values of earlier calls; see `Transformer.forward`.

        Returns:
            (B, N, W) after the final norm; (B, 1, W) with `at`.
        """
        past = 0 if cache is None else cache.length
        visibility = Visibility.of(mask, past + tokens.shape[1], tokens.device, causal=self.config.causal, past=past)
        recompute = self.config.checkpoint and self.training and cache is None and torch.is_grad_enabled()
        last = len(self.blocks) - 1
        for index, (block, cross) in enumerate(zip(self.blocks, self.crosses, strict=True)):
            own = None if cache is None else cache.blocks[index]
            # Everything bound: a block that is recomputed runs long after this loop.
            run = partial(_pair, block, cross, visibility=visibility, cache=own, at=at if index == last else None)
            tokens = checkpoint(run, tokens, memory, use_reentrant=False) if recompute else run(tokens, memory)
        return self.norm(tokens)  # type: ignore[no-any-return]


def _pair(
    block: nn.Module,
    cross: nn.Module,
    tokens: Tensor,
    memory: Tensor | None,
    *,
    visibility: Visibility,
    cache: BlockCache | None,
    at: Tensor | None,
) -> Tensor:
    """Two blocks, one after the other."""
    tokens = block(tokens, None, visibility, cache=cache, at=at)
    return cross(tokens, memory, None if cache is None else cache.memory)  # type: ignore[no-any-return]
