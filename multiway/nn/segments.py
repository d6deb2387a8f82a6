"""Attention of one part of a sequence over another, taken out of joint self-attention as a part of the graph.

In a single-stream encoder (ViLT, arXiv 2102.03334) words attend to patches within the one attention over words and patches
together. To differentiate a score by that part alone (Grad-CAM, arXiv 1610.02391) it has to be a tensor that the result is
computed from, and a slice of the whole map is not. So the map is taken apart and put together again (`attend`).
"""

from __future__ import annotations

from torch import Tensor

from multiway.nn.attention import Visibility, attend
from multiway.nn.block import Block
from multiway.nn.transformer import Transformer

__all__ = ["run_with_segment_maps"]


def run_with_segment_maps(
    transformer: Transformer, tokens: Tensor, mask: Tensor | None, split: int
) -> tuple[Tensor, list[Tensor]]:
    """Run all blocks, and keep the attention of the tokens before `split` over those from it on.

    Computes what `Transformer.forward` does in evaluation mode (no dropout, no dropped paths), with written-out attention.

    Args:
        transformer: bidirectional blocks without a memory.
        tokens: (B, L + N, W).
        mask: (B, L + N) bool, True at real tokens; None when all are.
        split: L.

    Returns:
        (B, L + N, W) after the final norm, and per block (B, heads, L, N), which the result depends on.
    """
    visibility = Visibility.of(mask, tokens.shape[1], tokens.device)
    maps = []
    for block in transformer.blocks:
        assert isinstance(block, Block)
        tokens, part = _block(block, tokens, visibility, split)
        maps.append(part)
    return transformer.norm(tokens), maps


def _block(block: Block, tokens: Tensor, visibility: Visibility, split: int) -> tuple[Tensor, Tensor]:
    attention = block.attention
    looked = block.attention_norm(tokens) if block.pre else tokens
    heads = attention.qkv(looked).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = heads.unbind(0)
    mixed, across = attend(query, key, value, visibility, split=split)
    assert across is not None
    tokens = tokens + _scaled(block.attention_residual.scale, attention.out(mixed.transpose(1, 2).flatten(2)))
    if not block.pre:
        tokens = block.attention_norm(tokens)
    change = block.mlp(block.mlp_norm(tokens) if block.pre else tokens)
    tokens = tokens + _scaled(block.mlp_residual.scale, change)
    return (tokens if block.pre else block.mlp_norm(tokens)), across


def _scaled(scale: Tensor | None, change: Tensor) -> Tensor:
    return change if scale is None else change * scale
