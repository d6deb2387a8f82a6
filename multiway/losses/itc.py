"""Image-text contrastive loss (ITC).

A. Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv 2103.00020 (section
2.3, figure 3); the queue and the soft targets are those of J. Li et al., Align before Fuse, 2021, arXiv 2107.07651 (ALBEF,
equations 1-3 and 6). With s_ij = scale <v_i, w_j>, T_i the candidates that belong with image i, and K candidates,

    L = 1/2 mean_i [ log sum_j exp s_ij - mean_{j in T_i} s_ij ]  +  the same with images and texts exchanged

which is the cross entropy against targets spread evenly over T_i. Several captions of one picture (equal `image_id`) and
one caption of several pictures (equal `text_id`) are never each other's negatives, unlike in the papers.

Across ranks each rank scores its own rows against everybody's and returns the mean over its own: averaged over ranks this
is the loss of the whole batch, and under DDP, which averages gradients, `gradient="global"` gives the gradients of one rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from multiway.losses.chance import uniform, uniform_over_rows
from multiway.losses.contrast import contrast, expected_candidate
from multiway.losses.same import Same, gather_same
from multiway.world import GradientMode, World

__all__ = ["Candidates", "ItcResult", "itc"]


@dataclass(frozen=True)
class Candidates:
    """What queries are scored against, instead of the batch of all ranks: momentum features of it, then a queue.

    Attributes:
        image, text: (K, D) features, L2-normalised; all ranks' pairs of this batch first, in rank order.
        image_id, text_id: (K,) int64, whose picture and caption these pairs are; None as in `itc`.
    """

    image: Tensor
    text: Tensor
    image_id: Tensor | None = None
    text_id: Tensor | None = None


@dataclass(frozen=True)
class ItcResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient, the mean of both directions.
        image_to_text, text_to_image: scalar, each direction's loss (ALBEF: L_i2t, L_t2i).
        image_to_text_accuracy, text_to_image_accuracy: share of rows whose best candidate belongs to them, detached.
        chance: loss of logits that are all equal.
        formula: how `chance` comes about: `ln 128`.
    """

    loss: Tensor
    image_to_text: Tensor
    text_to_image: Tensor
    image_to_text_accuracy: Tensor
    text_to_image_accuracy: Tensor
    chance: float
    formula: str


def itc(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    world: World,
    image_id: Tensor | None = None,
    text_id: Tensor | None = None,
    same: Literal["positive", "ignore"] = "positive",
    gradient: GradientMode = "global",
    chunk: int | None = None,
    candidates: Candidates | None = None,
    soft: float = 0.0,
) -> ItcResult:
    """Image-text contrastive loss over all ranks' pairs, exact, in memory O(b x chunk).

    Args:
        image, text: (b, D) this rank's L2-normalised embeddings, row i of each a pair; every rank brings b.
        scale: scalar exp(t), the factor of the cosines (CLIP learns t; 1 / temperature).
        world: the ranks.
        image_id, text_id: (b,) int64; None where no two rows share any. All ranks give them or none does.
        same: what becomes of other rows with an equal id: further positives, or left out of the denominator.
        gradient: how gradients cross ranks (`World.gather`); of no account with `candidates`.
        chunk: rows of logits held at once; by default a few million elements' worth.
        candidates: score against these instead of gathering.
        soft: alpha of momentum distillation (ALBEF equation 6): this share of the target is the softmax that the
            candidates' own rows, being the momentum model's features, give.

    Raises:
        ValueError: for shapes, ids or options that do not fit.
    """
    _check(image, text, scale, world, image_id, text_id, same, chunk, candidates, soft)
    rows, first = image.shape[0], world.rank * image.shape[0]
    if candidates is None:
        ids = gather_same(image_id, text_id, rows, world)
        images, texts = world.gather(image, gradient), world.gather(text, gradient)
    else:
        ids, images, texts = Same(candidates.image_id, candidates.text_id), candidates.image, candidates.text
    ignored = ids if same == "ignore" and ids else None

    if candidates is None and world.size == 1 and gradient != "none":
        # The transposed problem is the other direction: one pass over the logits serves both.
        there = contrast(image, text, scale, both=True, ignored=ignored, chunk=chunk)
        scored = [(there.row_nll, there.row_best), (there.column_nll, there.column_best)]
    else:
        there = contrast(image, texts, scale, first, ignored=ignored, chunk=chunk)
        back = contrast(text, images, scale, first, ignored=ignored, chunk=chunk)
        scored = [(there.row_nll, there.row_best), (back.row_nll, back.row_best)]

    own = slice(first, first + rows)
    to_images, to_texts = images, texts
    if ids and ignored is None:
        # One gather of positives for both directions: images and texts side by side.
        precision = scored[0][0].dtype
        both = ids.mean(torch.cat([images.to(precision), texts.to(precision)], 1))
        to_images, to_texts = both.split(images.shape[1], 1)
    losses, accuracies = [], []
    sides = ((image, texts, to_texts, images), (text, images, to_images, texts))
    for (nll, best), (query, others, positives, teachers) in zip(scored, sides, strict=True):
        if soft or positives is not others:
            # `nll` is that of the own candidate, but the target is a mean of candidates. Exactly equal, and this term
            # exactly zero, where a row has one positive and no teacher.
            target = positives[own]
            if soft:
                expected = expected_candidate(teachers[own], others, scale, first, ignored, chunk)
                target = (1.0 - soft) * target + soft * expected
            nll = nll + scale.to(nll.dtype) * (query.to(nll.dtype) * (others[own] - target)).sum(1)
        losses.append(nll.mean())
        number = torch.arange(first, first + rows, device=best.device)
        accuracies.append(ids.contains(number, best).to(nll.dtype).mean())

    chance = uniform(texts.shape[0]) if ignored is None else uniform_over_rows(texts.shape[0] + 1 - ids.count[own])
    loss = 0.5 * (losses[0] + losses[1])
    return ItcResult(loss, losses[0], losses[1], accuracies[0], accuracies[1], chance.value, chance.formula)


def _check(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    world: World,
    image_id: Tensor | None,
    text_id: Tensor | None,
    same: str,
    chunk: int | None,
    candidates: Candidates | None,
    soft: float,
) -> None:
    if image.ndim != 2 or image.shape != text.shape or image.shape[0] == 0:
        raise ValueError(
            f"image is {tuple(image.shape)} and text {tuple(text.shape)}; expected two equal (b, D) with at least one row: "
            "row i of each is a pair"
        )
    if scale.numel() != 1:
        raise ValueError(f"scale has shape {tuple(scale.shape)}; expected one number, one over the temperature")
    if same not in ("positive", "ignore"):
        raise ValueError(f"same is {same!r}; expected 'positive' or 'ignore'")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; expected at least 1 row, or None to choose by size")
    if not 0.0 <= soft <= 1.0:
        raise ValueError(f"soft is {soft}; expected a share from 0 to 1")
    if candidates is not None:
        _check_candidates(candidates, world.rank * image.shape[0] + image.shape[0], image.shape[1])
        if image_id is not None or text_id is not None:
            raise ValueError(
                "image_id and text_id are given beside candidates; expected them in `Candidates`, one per candidate"
            )
    elif soft:
        raise ValueError("soft targets need `candidates`: the momentum model's features, which give them")


def _check_candidates(candidates: Candidates, pairs: int, dimension: int) -> None:
    image, text = candidates.image, candidates.text
    if image.ndim != 2 or image.shape != text.shape or image.shape[1] != dimension or len(image) < pairs:
        raise ValueError(
            f"candidates are {tuple(image.shape)} and {tuple(text.shape)}; expected two equal (K, {dimension}) with K at "
            f"least {pairs}: all ranks' pairs of this batch first"
        )
    for name, ids in (("image_id", candidates.image_id), ("text_id", candidates.text_id)):
        if ids is not None and ids.shape != (len(image),):
            raise ValueError(
                f"candidates' {name} is {tuple(ids.shape)}; expected one for each of {len(image)} candidates"
            )
