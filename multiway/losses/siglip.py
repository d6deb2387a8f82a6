"""Pairwise sigmoid loss of SigLIP.

X. Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023, arXiv 2303.15343 (section 3.2, algorithm 1). Every image
with every text is a yes-or-no question, with z_ij = +1 where they belong together and -1 elsewhere:

    L = - 1/b sum_i sum_j log sigmoid(z_ij (t <v_i, w_j> + c))

divided by the number of images, not of questions. t = exp(t') with t' starting at ln 10, and the bias c at -10, so that the
mass of negatives does not dominate the first steps. Rows that share a picture or a caption belong together as well, unlike
in the paper, where only the diagonal does.

Across ranks each rank asks its own images about everybody's texts, so that only texts are gathered; averaged over ranks
this is the loss of the whole batch. (The paper passes texts around a ring of devices: the same sum with less memory for
features, of which (K, D) is the small part; logits here are in chunks.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from multiway.losses.chance import sigmoid_pairs
from multiway.losses.contrast import default_chunk
from multiway.losses.same import Same, gather_same
from multiway.world import World

__all__ = ["SiglipResult", "siglip"]


@dataclass(frozen=True)
class SiglipResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient.
        accuracy: share of images whose best text belongs to them, detached.
        chance: loss at the best constant logit.
        formula: how `chance` comes about: `128 H(1/128)`.
    """

    loss: Tensor
    accuracy: Tensor
    chance: float
    formula: str


def siglip(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    world: World,
    image_id: Tensor | None = None,
    text_id: Tensor | None = None,
    gradient: Literal["global", "local"] = "global",
    chunk: int | None = None,
) -> SiglipResult:
    """Pairwise sigmoid loss over all ranks' pairs, exact, each logit computed once, in memory O(b x chunk).

    Args:
        image, text: (b, D) this rank's L2-normalised embeddings, row i of each a pair; every rank brings b.
        scale: scalar t.
        bias: scalar c.
        world: the ranks.
        image_id, text_id: (b,) int64; None where no two rows share any. All ranks give them or none does.
        gradient: how gradients reach texts (`World.gather`).
        chunk: rows of logits held at once; by default a few million elements' worth.

    Raises:
        ValueError: for shapes, ids or options that do not fit.
    """
    if image.ndim != 2 or image.shape != text.shape or image.shape[0] == 0:
        raise ValueError(
            f"image is {tuple(image.shape)} and text {tuple(text.shape)}; expected two equal (b, D) with at least one row"
        )
    if scale.numel() != 1 or bias.numel() != 1:
        raise ValueError(f"scale is {tuple(scale.shape)} and bias {tuple(bias.shape)}; expected one number each")
    if gradient not in ("global", "local"):
        raise ValueError(
            f"gradient is {gradient!r}; expected 'global' or 'local': texts learn through the gathering alone"
        )
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; expected at least 1 row, or None to choose by size")
    rows, first = image.shape[0], world.rank * image.shape[0]
    same = gather_same(image_id, text_id, rows, world)
    texts = world.gather(text, gradient)
    rows_at_once = default_chunk(rows, texts.shape[0], image.device) if chunk is None else min(chunk, rows)
    loss, best = _Pairs.apply(image, texts, scale, bias, first, same, rows_at_once)
    positives = float(same.count[first : first + rows].double().mean()) if same else 1.0
    hits = same.contains(torch.arange(first, first + rows, device=best.device), best)
    return SiglipResult(loss, hits.to(loss.dtype).mean(), *sigmoid_pairs(texts.shape[0], positives))


class _Pairs(torch.autograd.Function):
    """The loss is a plain sum, so its gradients are known in the forward pass and no logit is computed twice."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, first: int, same: Same, chunk: int
    ) -> tuple[Tensor, Tensor]:
        tensors = (image, text, scale, bias)
        precision = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
        x, y, factor, shift = (tensor.detach().to(precision) for tensor in tensors)
        factor, shift = factor.reshape(()), shift.reshape(())
        rows, learns = x.shape[0], any(ctx.needs_input_grad[:4])
        total, to_bias = x.new_zeros(()), x.new_zeros(())
        to_x, to_y = torch.empty_like(x), torch.zeros_like(y)
        best = torch.empty(rows, dtype=torch.int64, device=x.device)
        with torch.autocast(x.device.type, enabled=False):
            scaled = x * factor
            for start in range(0, rows, chunk):
                stop = min(start + chunk, rows)
                logits = torch.addmm(shift, scaled[start:stop], y.t())
                best[start:stop] = logits.argmax(1)
                # -log sigmoid(z l) = softplus(-z l), whose derivative is -z sigmoid(-z l).
                positive = _positives(same, first, start, stop, y.shape[0], x.device)
                signed = torch.where(positive, logits, -logits)
                total += F.softplus(-signed).sum()
                if learns:
                    change = torch.sigmoid(-signed)
                    change = torch.where(positive, -change, change)
                    to_bias += change.sum()
                    torch.mm(change, y, out=to_x[start:stop])
                    to_y.addmm_(change.t(), scaled[start:stop])
            to_scale = (to_x * x).sum()
        gradients = (to_x.mul_(factor), to_y, to_scale, to_bias)
        ctx.save_for_backward(*(gradient.div_(rows) for gradient in gradients))
        ctx.like = [(tensor.shape, tensor.dtype) for tensor in tensors]
        ctx.mark_non_differentiable(best)
        return total / rows, best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_loss: Tensor, _best: Any) -> tuple[Any, ...]:
        gradients = [
            (gradient * by_loss).reshape(shape).to(dtype)
            for gradient, (shape, dtype) in zip(ctx.saved_tensors, ctx.like, strict=True)
        ]
        return (*gradients, None, None, None)


def _positives(same: Same, first: int, start: int, stop: int, candidates: int, device: torch.device) -> Tensor:
    """(stop - start, K) bool: which texts belong with which of this chunk's images."""
    if same:
        return same.mask(first + start, first + stop)
    positive = torch.zeros(stop - start, candidates, dtype=torch.bool, device=device)
    positive.diagonal(first + start).fill_(True)
    return positive
