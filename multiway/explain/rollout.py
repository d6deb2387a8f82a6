"""Attention rollout: from which patches the last token's content came, through all blocks.

Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, arXiv 2005.00928, section 3: a block passes on what its
tokens attend to and, along the residual connection, what they are, half and half. With W_l the attention of block l, mean over
heads,

    A_l = (W_l + I) / 2,     R = A_L ... A_2 A_1

Row i of R says how the embedded tokens share in token i of the last block. What value and feed-forward matrices do is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["rollout"]


def rollout(blocks: Sequence[Tensor], residual: float = 0.5) -> Tensor:
    """Multiply attention through the blocks.

    Args:
        blocks: from the first to the last, each (..., heads, N, N), rows summing to 1; the last may be (..., heads, Q, N), of its
            first Q tokens alone.
        residual: share of a token's own content, 0.5 in the paper.

    Returns:
        (..., Q, N), rows summing to 1.

    Raises:
        ValueError: without a block, if one but the last is not square, or for a residual outside [0, 1].
    """
    if not blocks or not 0 <= residual <= 1:
        raise ValueError(
            f"given {len(blocks)} blocks and residual {residual}; expected one at least, and a share in [0, 1]"
        )
    tokens = blocks[0].shape[-1]
    for number, block in enumerate(blocks):
        if block.shape[-1] != tokens or (block.shape[-2] != tokens and number + 1 < len(blocks)):
            raise ValueError(
                f"attention of block {number} is {tuple(block.shape[-2:])} where ({tokens}, {tokens}) is expected; rollout needs "
                "every token of every block but the last"
            )
    found: Tensor | None = None
    # Not in bf16, which autocast would multiply in: patches that differ would become equal.
    with torch.autocast(blocks[0].device.type, enabled=False):
        for block in blocks:
            own = torch.eye(tokens, dtype=block.dtype, device=block.device)[: block.shape[-2]]
            mixed = (1 - residual) * block.mean(-3) + residual * own
            found = mixed if found is None else mixed @ found
    assert found is not None
    return found
