"""Self-distillation: a student says of one view what its moving average, the teacher, says of another.

M. Caron et al., Emerging Properties in Self-Supervised Vision Transformers (DINO), 2021, arXiv 2104.14294, equations 1-4. With
g the outputs over K dimensions and c the centre of the teacher's (`nn/center.py`),

    P_t = softmax((g_t - c) / tau_t)     P_s = softmax(g_s / tau_s)
    L   = mean over large views x, views x' != x of  H(P_t(x), P_s(x'))

Centring alone lets targets become even, sharpening (tau_t < tau_s) alone lets one output win; they need each other (section
5.3). The paper's text adds the bias c; its code, and this, subtract the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multiway.losses.cross_view import CrossViewResult, cross_view
from multiway.losses.unit import precise
from multiway.world import World

__all__ = ["self_distillation", "sharpen"]


@torch.no_grad()
def sharpen(logits: Tensor, center: Tensor | None, temperature: float) -> Tensor:
    """softmax((g - c) / tau): (..., K) teacher outputs and the (K,) centre -> (..., K) targets in float32 or better.

    Args:
        center: None centres nothing.
    """
    if temperature <= 0 or (center is not None and center.shape != logits.shape[-1:]):
        raise ValueError(
            f"outputs are {tuple(logits.shape)}, centre {None if center is None else tuple(center.shape)}, temperature "
            f"{temperature}; expected (..., K), (K,) and more than 0"
        )
    logits = precise(logits)
    return ((logits if center is None else logits - center) / temperature).softmax(-1)


def self_distillation(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    center: Tensor | None,
    world: World,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> CrossViewResult:
    """The loss; see `cross_view` for what it returns and raises.

    Args:
        student: V of (b, K) outputs, those of the large views first.
        teacher: of the large views, (b, K) each; no gradient enters.
        center: (K,); None leaves centring out.
        world: the ranks.
        student_temperature, teacher_temperature: tau_s and tau_t.
    """
    targets = [sharpen(each, center, teacher_temperature) for each in teacher]
    return cross_view(student, targets, student_temperature, world)
