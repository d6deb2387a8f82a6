"""Multi-head attention (Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, section 3.2), and the one
place where the code chooses by which kernel it is computed.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "Kernel", "attend", "choose_kernel", "visibility"]

Kernel = Literal["written", "fused"]


def choose_kernel(query: Tensor, keys: int, *, backward: bool) -> Kernel:
    """Which form of attention is faster for this call.

    Args:
        query: (B, H, N, D); its device, dtype and length decide.
        keys: number of keys M.
        backward: whether a gradient will flow.

    Returns:
        `written` (softmax of the score matrix, in separate operations) or `fused` (torch's
        `scaled_dot_product_attention`, which never stores the score matrix).
    """
    if query.device.type != "cpu":
        return "fused"
    # On a CPU the fused forward wins at every length, but its backward recomputes the scores block by block without
    # the matrix library's fast path. `benchmarks/attention.py` prints where the two meet on the machine at hand.
    if backward and keys <= 256:
        return "written"
    return "fused"


def visibility(mask: Tensor | None, queries: int, keys: int, causal: bool, device: torch.device) -> Tensor | None:
    """Which key each query may look at.

    Args:
        mask: (B, M) bool, True at keys that are real; None when all are.
        queries: number of queries N; they are the last N of the M positions when `causal`.
        keys: M.
        causal: a query sees no key that comes after it.
        device: where to build what is missing.

    Returns:
        bool, broadcastable to (B, H, N, M); None when everything is visible.

    Raises:
        ValueError: if the mask does not fit the keys.
    """
    if mask is not None and (mask.dim() != 2 or mask.shape[-1] != keys):
        raise ValueError(
            f"attention mask of shape {tuple(mask.shape)} for {keys} keys; expected (B, {keys}), True at real tokens"
        )
    visible = None if mask is None else mask.bool()[:, None, None, :]
    if causal:
        earlier = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
        visible = earlier if visible is None else visible & earlier
    return visible


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    visible: Tensor | None = None,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    kernel: Kernel | None = None,
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q K^T / sqrt(D) + bias) V.

    A query that sees no key gets zeros, in either form.

    Args:
        query: (B, H, N, D).
        key, value: (B, H, M, D).
        visible: bool, broadcastable to (B, H, N, M), True where a query may look; None for everywhere.
        bias: added to the scores, broadcastable to (B, H, N, M) (relative positions).
        dropout: probability with which a weight is dropped.
        kernel: `written`, `fused`, or None to choose by `choose_kernel`.

    Returns:
        (B, H, N, D), and the attention map (B, H, N, M) where the written form was used, else None.
    """
    if kernel is None:
        backward = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
        kernel = choose_kernel(query, key.shape[-2], backward=backward)
    if kernel == "fused":
        return F.scaled_dot_product_attention(query, key, value, _additive(visible, bias), dropout), None

    # Scaling the queries costs N x D products where scaling the scores costs N x M.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    if visible is not None:
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, -1)
    mixed = (F.dropout(weights, dropout) if dropout else weights) @ value
    if visible is not None:
        mixed = mixed * visible.any(-1, keepdim=True)
    return mixed, weights


def _additive(visible: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """The one mask argument of the fused form."""
    if bias is None or visible is None:
        return visible if bias is None else bias
    return bias.masked_fill(~visible, -torch.inf)


class Attention(nn.Module):
    """Multi-head attention of tokens over themselves, or over a memory.

    Self-attention projects with one merged matrix; attention over a memory with one for the queries and one merged
    for keys and values.

    Args:
        width: W, of the tokens.
        heads: H; must divide the width.
        memory_width: width of the memory's tokens; None for self-attention.
        output_width: of the result; W by default.
        bias: whether the query, key and value projections have one.
        dropout: of the attention weights, in training.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        memory_width: int | None = None,
        output_width: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads; choose a multiple of {heads}")
        self.heads = heads
        self.dropout = dropout
        if memory_width is None:
            self.qkv = nn.Linear(width, 3 * width, bias=bias)
        else:
            self.query = nn.Linear(width, width, bias=bias)
            self.key_value = nn.Linear(memory_width, 2 * width, bias=bias)
        self.crosses = memory_width is not None
        self.out = nn.Linear(width, output_width or width)

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor | None = None,
        *,
        visible: Tensor | None = None,
        bias: Tensor | None = None,
        record: MutableMapping[str, Tensor] | None = None,
        path: str = "attention",
    ) -> Tensor:
        """Attend.

        Args:
            tokens: (B, N, W).
            memory: (B, M, memory_width), for attention over a memory only.
            visible: see `visibility`.
            bias: added to the scores, broadcastable to (B, H, N, M).
            record: receives the attention map (B, H, N, M) under `path`; it is part of the graph, so that a gradient
                with respect to it can be asked for. Forces the written-out form.
            path: where in `record`.

        Returns:
            (B, N, W).
        """
        if self.crosses:
            if memory is None:
                raise ValueError("this attention looks at a memory, and none was given; pass memory=(B, M, width)")
            query = self._split(self.query(tokens), 1)[0]
            key, value = self._split(self.key_value(memory), 2)
        else:
            query, key, value = self._split(self.qkv(tokens), 3)
        mixed, weights = attend(
            query,
            key,
            value,
            visible=visible,
            bias=bias,
            dropout=self.dropout if self.training else 0.0,
            kernel=None if record is None else "written",
        )
        if record is not None and weights is not None:
            record[path] = weights
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, N, parts x W) -> `parts` tensors (B, H, N, D)."""
        rows, length, _ = projected.shape
        return projected.view(rows, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
