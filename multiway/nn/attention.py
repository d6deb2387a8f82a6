"""Multi-head attention (Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, section 3.2), and the one
place where the code chooses by which kernel it is computed.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.nn.cache import KeyValues

__all__ = ["ALL_VISIBLE", "Attention", "Kernel", "Visibility", "attend", "choose_kernel", "tokens_at"]

Kernel = Literal["written", "fused"]


def choose_kernel(like: Tensor, keys: int, *, backward: bool) -> Kernel:
    """Which form of attention is faster for this call.

    Args:
        like: any tensor with the device and dtype of the queries.
        keys: number of keys M.
        backward: whether a gradient will flow.

    Returns:
        `written` (softmax of the score matrix, in separate operations) or `fused` (torch's
        `scaled_dot_product_attention`, which never stores the score matrix).
    """
    # Measured with benchmarks/attention.py, torch 2.13. A GPU's fused kernels win by memory traffic alone.
    if like.device.type != "cpu":
        return "fused"
    # fp32: the fused forward wins at every length (1.2-1.8x); its backward only from 64 keys on (1.0x there, 1.9x at
    # 1024).
    if like.dtype not in (torch.bfloat16, torch.float16):
        return "written" if backward and keys < 64 else "fused"
    # bf16: the fused backward is 2-6x slower up to 1024 keys, with and without AMX. Forward alone, written-out wins up
    # to 128 keys everywhere, beyond only on cores without AMX. Past 1024 keys the score matrix grows too large.
    return "written" if keys <= (1024 if backward else 128) else "fused"


class Visibility(NamedTuple):
    """Which key each query may look at, worked out once for all layers.

    Attributes:
        allowed: bool, broadcastable to (B, H, N, M); None when every key is visible to every query.
        triangle: `allowed` is exactly the causal triangle of N = M positions, which fused kernels know by name.
        complete: every query is known to see a key, so that none has to be given zeros. False only means not known.
    """

    allowed: Tensor | None = None
    triangle: bool = False
    complete: bool = False

    @classmethod
    def of(
        cls, mask: Tensor | None, length: int, device: torch.device, *, causal: bool = False, past: int = 0
    ) -> Visibility:
        """From a padding mask and the order of the tokens.

        Args:
            mask: (B, M) bool, True at keys that are real; None when all are.
            length: M.
            device: where to build what is missing.
            causal: a query sees no key that comes after it.
            past: how many of the M keys were seen before: the queries are the last M - past positions.

        Raises:
            ValueError: if the mask does not fit the keys.
        """
        if mask is not None and (mask.dim() != 2 or mask.shape[1] != length):
            raise ValueError(
                f"attention mask of shape {tuple(mask.shape)} for {length} tokens; expected (B, {length}), True at "
                "real tokens"
            )
        allowed = None if mask is None else mask.bool()[:, None, None, :]
        looks_back = causal and not (past and length - past == 1)
        # Once for all layers, and only where to ask costs nothing: a GPU would have to be waited for, a graph is traced for any mask.
        unasked = device.type != "cpu" or torch.compiler.is_compiling() or torch.compiler.is_exporting()
        first = None if mask is None or unasked else mask[:, : past + 1] if looks_back else mask
        complete = mask is None or (first is not None and bool(first.any(1).all()))
        if not looks_back:
            return cls(allowed, complete=complete)
        earlier = torch.ones(length - past, length, dtype=torch.bool, device=device).tril(past)
        return cls(earlier if allowed is None else allowed & earlier, allowed is None and past == 0, complete)

    def at(self, positions: Tensor) -> Visibility:
        """For the queries at `positions` alone, (B,) or (B, P): `allowed` becomes (B, 1, P, M)."""
        if self.allowed is None or self.allowed.shape[-2:-1] == (1,):
            return Visibility(self.allowed, complete=self.complete)
        return Visibility(_rows(self.allowed, positions), complete=self.complete)


ALL_VISIBLE = Visibility()


def tokens_at(tokens: Tensor, positions: Tensor) -> Tensor:
    """tokens[b, positions[b]]: (B, N, ...) and (B,) or (B, P) -> (B, P, ...), where P is 1 for one position per row."""
    rows = torch.arange(tokens.shape[0], device=tokens.device)
    return tokens[rows[:, None], positions.view(positions.shape[0], -1)]


def _rows(scores_like: Tensor, positions: Tensor) -> Tensor:
    """Rows `positions[b]` of something broadcastable to (B, H, N, M): (B, H or 1, P, M)."""
    full = scores_like[(None,) * (4 - scores_like.dim())].expand(positions.shape[0], -1, -1, -1)
    return tokens_at(full.transpose(1, 2), positions).transpose(1, 2)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visibility: Visibility = ALL_VISIBLE,
    *,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    kernel: Kernel = "written",
    split: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q K^T / sqrt(D) + bias) V.

    A query that sees no key gets zeros, in either form. In bf16 the written-out form keeps scores and weights in bf16,
    as both are operands of bf16 products anyway; torch's softmax sums in fp32 within a row.

    Args:
        query: (B, H, N, D).
        key, value: (B, H, M, D).
        visibility: what a query may look at.
        bias: added to the scores, broadcastable to (B, H, N, M) (relative positions).
        dropout: probability with which a weight is dropped.
        kernel: see `choose_kernel`.
        split: where the sequence is taken apart, of the written-out form: the map that is given back is then the part of the first
            `split` queries over the keys from there on, as a tensor of its own that the result is computed from, so that the result can
            be differentiated by it (Grad-CAM); a slice of the whole map is not. None for the whole map.

    Returns:
        (B, H, N, D), and, of the written-out form, the attention map (B, H, N, M) before dropout, or the part (B, H, split, M - split);
        else None.
    """
    allowed = visibility.allowed
    if kernel == "fused":
        triangle = visibility.triangle and bias is None
        mask = allowed if bias is None else bias.to(query.dtype)
        if bias is not None and allowed is not None:
            mask = torch.where(allowed, bias.to(query.dtype), -torch.inf)
        mixed = F.scaled_dot_product_attention(
            query, key, value, None if triangle else mask, dropout, is_causal=triangle
        )
        return mixed, None

    # Scaling the queries costs N x D products where scaling the scores costs N x M.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if allowed is not None:
        # Added, not chosen by `where`, which is one pass over all scores less in the backward. So low that a score is lost in
        # it, yet finite: a row of minus infinities would make softmax and its gradient NaN.
        floor = torch.zeros(allowed.shape, dtype=scores.dtype, device=scores.device)
        scores = scores + floor.masked_fill_(~allowed, torch.finfo(scores.dtype).min / 2)
    weights = torch.softmax(scores, -1, dtype=scores.dtype)
    if allowed is not None and not visibility.complete:
        weights = weights * allowed.any(-1, keepdim=True)
    shown = weights
    if split is not None:
        shown = weights[:, :, :split, split:]
        weights = torch.cat([torch.cat([weights[:, :, :split, :split], shown], -1), weights[:, :, split:]], 2)
    return (F.dropout(weights, dropout) if dropout else weights) @ value, shown


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
        visibility: Visibility = ALL_VISIBLE,
        *,
        memory_rows: Tensor | None = None,
        at: Tensor | None = None,
        bias: Tensor | None = None,
        cache: KeyValues | None = None,
        record: MutableMapping[str, Tensor] | None = None,
        path: str = "attention",
    ) -> Tensor:
        """Attend.

        Args:
            tokens: (B, N, W).
            memory: (B, M, memory_width), for attention over a memory only. Fewer rows than the tokens have serve equally
                many rows in a row each (the beams of one picture).
            memory_rows: (B,) int64, for a memory of fewer rows than B: which of them each row looks at. Keys and values
                are then projected once per memory, not once per row.
            visibility: what each of the N queries may look at.
            at: (B,) or (B, P) positions whose results are wanted: N is then 1 or P for the queries, and only keys and
                values are computed for the other tokens. Self-attention only.
            bias: added to the scores, broadcastable to (B, H, N, M).
            cache: of self-attention: keys and values of earlier tokens, which are seen too, and to which these are added.
                Of attention over a memory: projected at the first call, read at the others, whatever `memory` is then.
            record: receives the attention map (B, H, N, M) under `path`; it is part of the graph, so that a gradient
                with respect to it can be asked for. Forces the written-out form.
            path: where in `record`.

        Returns:
            (B, N, output_width), or (B, P, output_width) with `at`.

        Raises:
            ValueError: if an attention over a memory is given none, or one whose rows do not divide the tokens'.
        """
        keys = tokens if memory is None else memory
        rows = tokens.shape[0]
        stored = cache if cache is not None and cache.key is not None else None
        count = keys.shape[1] if stored is None else stored.length + (0 if self.crosses else tokens.shape[1])
        backward = torch.is_grad_enabled() and (
            tokens.requires_grad or keys.requires_grad or self.out.weight.requires_grad
        )
        if self.crosses:
            query_of = self._beside(self.query(tokens), memory, memory_rows, stored)
            projected = [(query_of, 1)]
            if stored is None:
                if memory is None:
                    raise ValueError("this attention looks at a memory, and none was given; pass memory=(B, M, width)")
                key_value = self.key_value(memory)
                if memory_rows is not None and cache is None:
                    key_value = key_value.index_select(0, memory_rows)
                projected.append((key_value, 2))
        elif at is None:
            projected = [(self.qkv(tokens), 3)]
        else:
            visibility = visibility.at(at)
            bias = None if bias is None else _rows(bias, at)
            (query_weight, other_weight), (query_bias, other_bias) = self._query_apart()
            wanted = tokens_at(tokens, at)
            projected = [
                (F.linear(wanted, query_weight, query_bias), 1),
                (F.linear(tokens, other_weight, other_bias), 2),
            ]

        kernel = "written" if record is not None else choose_kernel(projected[0][0], count, backward=backward)
        query, *own = (part for each, parts in projected for part in self._split(each, parts, kernel))
        if self.crosses and stored is not None:
            key, value = stored.read()
        else:
            key, value = own if cache is None else cache.extend(own[0], own[1])
        if self.crosses and cache is not None and memory_rows is not None:
            key, value = key.index_select(0, memory_rows), value.index_select(0, memory_rows)
        dropout = self.dropout if self.training else 0.0
        mixed, weights = attend(query, key, value, visibility, bias=bias, dropout=dropout, kernel=kernel)
        if record is not None and weights is not None:
            record[path] = weights
        return self.out(mixed.transpose(1, 2).flatten(2).reshape(rows, -1, mixed.shape[1] * mixed.shape[3]))

    @staticmethod
    def _beside(queries: Tensor, memory: Tensor | None, memory_rows: Tensor | None, stored: KeyValues | None) -> Tensor:
        """(B, N, W) queries as (P, B / P x N, W), for P memories: queries over a memory do not see each other."""
        if memory_rows is not None:
            return queries
        own = stored.read()[0] if stored is not None else memory
        if own is None or own.shape[0] == queries.shape[0]:
            return queries
        if queries.shape[0] % own.shape[0]:
            raise ValueError(
                f"{queries.shape[0]} rows look at {own.shape[0]} memories; expected equally many rows for each, or "
                "memory_rows, which says whose is whose"
            )
        return queries.reshape(own.shape[0], -1, queries.shape[2])

    def _query_apart(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor | None, Tensor | None]]:
        """The merged projection's weights and biases, cut into the queries' and the rest."""
        width, bias = self.qkv.in_features, self.qkv.bias
        weights = self.qkv.weight[:width], self.qkv.weight[width:]
        return weights, (None, None) if bias is None else (bias[:width], bias[width:])

    def _split(self, projected: Tensor, parts: int, kernel: Kernel) -> tuple[Tensor, ...]:
        """(B, N, parts x W) -> `parts` tensors (B, H, N, D)."""
        rows, length, _ = projected.shape
        # Parted before heads are put beside rows: the backward then gathers the parts' gradients in one pass, not two.
        each = projected.view(rows, length, parts, self.heads, -1).unbind(2)
        split = tuple(part.transpose(1, 2) for part in each)
        # Batched products need heads beside rows: one copy here replaces one per operand (8 % of attention in bf16).
        return tuple(part.contiguous() for part in split) if kernel == "written" else split
