"""The softmax contrast of queries against candidates, exact, without ever holding the matrix of similarities.

For queries x (b, D), candidates y (K, D) and logits s_ij = scale <x_i, y_j>, the negative log-likelihood of the own
candidate f + i (f is where this rank's pairs begin) is

    nll_i = log sum_j exp s_ij - s_i,f+i

The (b, K) logits are computed in chunks of rows. The forward pass keeps log-sum-exps only, K + b numbers; the backward
pass computes each chunk's logits again and from them its softmax. Columns are summed online while rows pass by (running
maximum and rescaled sum: Milakov and Gimelshein, 2018, arXiv 1805.02867, section 3), so on one rank a single pass over the
logits serves both directions. Memory is O(chunk x K + (b + K) x D).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Contrast", "LeftOut", "contrast", "default_chunk", "expected_candidate"]

# Elements of the logits held at once: 16 MiB of float32 beside a CPU's caches; a GPU wants larger products.
_ELEMENTS_CPU = 1 << 22
_ELEMENTS_GPU = 1 << 26


class LeftOut(Protocol):
    """Which candidates are not in which query's denominator: `Same`, or a relation of another kind."""

    def mask(self, start: int, stop: int) -> Tensor:
        """(stop - start, K) bool, True at candidates that queries `start` to `stop` (of all ranks) do not see."""


class Contrast(NamedTuple):
    """What one pass over the logits yields.

    Attributes:
        row_nll: (b,) negative log-likelihood of each query's own candidate, with gradient.
        row_best: (b,) int64 candidate of greatest logit.
        column_nll, column_best: the same with the roles exchanged, (K,); empty unless asked for.
    """

    row_nll: Tensor
    row_best: Tensor
    column_nll: Tensor
    column_best: Tensor


def default_chunk(rows: int, candidates: int, device: torch.device) -> int:
    """Rows per chunk, so that a chunk of logits has a few million elements; all rows where they fit."""
    elements = _ELEMENTS_CPU if device.type == "cpu" else _ELEMENTS_GPU
    return max(1, min(rows, max(elements // max(candidates, 1), 32)))


def contrast(
    query: Tensor,
    candidates: Tensor,
    scale: Tensor,
    first: int = 0,
    both: bool = False,
    ignored: LeftOut | None = None,
    chunk: int | None = None,
) -> Contrast:
    """Negative log-likelihoods of own candidates, and if asked those of the transposed problem.

    Args:
        query: (b, D).
        candidates: (K, D); query i belongs with candidate `first + i`.
        scale: scalar factor of the dot products.
        both: also columns against rows; needs K = b.
        ignored: pairs to leave out of the denominators, the own pair excepted; over the K candidates.
        chunk: rows of logits held at once.

    Returns:
        Float32 (float64 for such input), whatever precision goes in or autocast is active.
    """
    rows = query.shape[0]
    chunk = default_chunk(rows, candidates.shape[0], query.device) if chunk is None else min(chunk, rows)
    return Contrast(*_Contrast.apply(query, candidates, scale, first, both, ignored, chunk))


class _Logits:
    """Logits in chunks of rows."""

    def __init__(self, query: Tensor, candidates: Tensor, first: int, ignored: LeftOut | None, chunk: int) -> None:
        self.query, self.transposed = query, candidates.t()  # the scale is already in the query
        self.first, self.ignored, self.chunk = first, ignored, chunk

    def spans(self) -> list[tuple[int, int]]:
        rows = self.query.shape[0]
        return [(start, min(start + self.chunk, rows)) for start in range(0, rows, self.chunk)]

    def __call__(self, start: int, stop: int) -> Tensor:
        logits = torch.mm(self.query[start:stop], self.transposed)
        if self.ignored:
            left_out = self.ignored.mask(self.first + start, self.first + stop)
            self.own(left_out, start).fill_(False)
            # Finite, so that a column whose rows so far are all left out has no inf - inf; exp of it is 0 all the same.
            logits.masked_fill_(left_out, torch.finfo(logits.dtype).min)
        return logits

    def own(self, block: Tensor, start: int) -> Tensor:
        """A view of the entries of a chunk that belong to own pairs: (stop - start,)."""
        return block.diagonal(self.first + start)


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: Tensor,
        candidates: Tensor,
        scale: Tensor,
        first: int,
        both: bool,
        ignored: LeftOut | None,
        chunk: int,
    ) -> tuple[Tensor, ...]:
        x, y, factor = (tensor.detach().to(_precision(query, candidates)) for tensor in (query, candidates, scale))
        rows, columns = x.shape[0], y.shape[0] if both else 0
        own, row_lse, row_best = x.new_empty(rows), x.new_empty(rows), x.new_empty(rows)
        peak, total, column_best = x.new_full((columns,), -torch.inf), x.new_zeros(columns), x.new_zeros(columns)
        with torch.autocast(query.device.type, enabled=False):
            logits = _Logits(x * factor, y, first, ignored, chunk)
            number = torch.arange(y.shape[0], device=x.device, dtype=x.dtype)
            for start, stop in logits.spans():
                block = logits(start, stop)
                own[start:stop] = logits.own(block, start)
                top = block.amax(1)
                row_weights = torch.empty_like(block)
                row_best[start:stop] = _last_equal(block, top[:, None], number, 1, room=row_weights)
                torch.sub(block, top[:, None], out=row_weights).exp_()
                row_total = row_weights.sum(1)
                row_lse[start:stop] = row_total.log().add_(top)
                if both:
                    top = block.amax(0)
                    column_weights = row_weights if chunk < rows else torch.empty_like(block)
                    here = _last_equal(block, top, number[start:stop, None], 0, room=column_weights)
                    column_best = torch.where(top > peak, here, column_best)
                    raised = torch.maximum(peak, top)
                    torch.sub(block, raised, out=column_weights).exp_()
                    total = total * torch.exp(peak - raised) + column_weights.sum(0)
                    peak = raised
            column_lse = total.log().add_(peak)
        saved = [x, y, factor, row_lse, column_lse]
        if chunk >= rows:
            # A single chunk is kept, so that small batches pay for no second product and no second exponential.
            saved += [row_weights, row_total] + ([column_weights, total] if both else [])
        ctx.save_for_backward(*saved)
        ctx.first, ctx.both, ctx.ignored, ctx.chunk = first, both, ignored, chunk
        ctx.dtypes = query.dtype, candidates.dtype, scale.dtype
        row_best, column_best = row_best.long(), column_best.long()
        ctx.mark_non_differentiable(row_best, column_best)
        return row_lse - own, row_best, column_lse - own if both else column_lse, column_best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_row: Tensor, _row_best: Any, by_column: Tensor, _column_best: Any) -> tuple[Any, ...]:
        x, y, factor, row_lse, column_lse, *kept = ctx.saved_tensors
        to_x, to_scale = torch.empty_like(x), x.new_zeros(())
        to_y = torch.zeros_like(y) if ctx.needs_input_grad[1] else None
        with torch.autocast(x.device.type, enabled=False):
            logits = _Logits(x * factor, y, ctx.first, ctx.ignored, ctx.chunk)
            for start, stop in logits.spans():
                # d nll / d logits: softmax over the row less one at the own pair; for columns likewise.
                if kept:
                    change = kept[0] * (by_row / kept[1])[:, None]
                    if ctx.both:
                        change.addcmul_(kept[2], by_column / kept[3])
                else:
                    block = logits(start, stop)
                    change = torch.sub(block, row_lse[start:stop, None]).exp_().mul_(by_row[start:stop, None])
                    if ctx.both:
                        change.addcmul_(torch.sub(block, column_lse, out=block).exp_(), by_column)
                own = by_row[start:stop] + by_column[start:stop] if ctx.both else by_row[start:stop]
                logits.own(change, start).sub_(own)
                torch.mm(change, y, out=to_x[start:stop])
                to_scale += (to_x[start:stop] * x[start:stop]).sum()
                if to_y is not None:
                    to_y.addmm_(change.t(), logits.query[start:stop])
            to_x.mul_(factor)
        query_type, candidate_type, scale_type = ctx.dtypes
        return (
            to_x.to(query_type),
            to_y.to(candidate_type) if to_y is not None else None,
            to_scale.reshape(factor.shape).to(scale_type),
            *[None] * 4,
        )


def _last_equal(block: Tensor, top: Tensor, number: Tensor, dim: int, room: Tensor) -> Tensor:
    """The greatest number where the block equals its maximum: an argmax; torch's own takes ten times as long on a CPU.

    One of several equal candidates, not each, counts as the best: embeddings that have collapsed onto a point then have
    an accuracy at chance and not of one. Numbers are floats, exact to 2 ** 24; `room` is overwritten.
    """
    return torch.eq(block, top, out=room).mul_(number).amax(dim)


@torch.no_grad()
def expected_candidate(
    query: Tensor,
    candidates: Tensor,
    scale: Tensor,
    first: int = 0,
    ignored: LeftOut | None = None,
    chunk: int | None = None,
) -> Tensor:
    """sum_j softmax(scale <x_i, y_j>)_j y_j: the candidate that a teacher expects, (b, D), without gradient.

    The cross entropy of soft targets q against logits is linear in q but for the log-sum-exp, so this mean is all that
    a student has to know of its teacher's (b, K) probabilities.
    """
    precision = _precision(query, candidates)
    x, y = query.to(precision), candidates.to(precision)
    chunk = default_chunk(x.shape[0], y.shape[0], x.device) if chunk is None else min(chunk, x.shape[0])
    with torch.autocast(x.device.type, enabled=False):
        logits = _Logits(x * scale.to(precision), y, first, ignored, chunk)
        return torch.cat([torch.softmax(logits(start, stop), 1) @ y for start, stop in logits.spans()])


def _precision(*tensors: Tensor) -> torch.dtype:
    """Float32, or float64 where that is what goes in: sums over many candidates are wrong in half precision."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
