"""Self-distillation of hidden patches: the student says of a patch it cannot see what the teacher, who sees it, says.

J. Zhou et al., Image BERT Pre-Training with Online Tokenizer (iBOT), 2022, arXiv 2111.07832, equation 2; M. Oquab et al.,
DINOv2, 2023, arXiv 2304.07193, section 4. With M_i the hidden patches of view i, of b views,

    L = 1 / b sum_i 1 / max(1, |M_i|) sum over p in M_i of  H(P_t(p), P_s(p))

A view without hidden patches counts as zero, as published: of iBOT's, every second has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.chance import uniform
from multiway.losses.self_distillation import sharpen
from multiway.losses.unit import exact, precise

__all__ = ["MaskedPatchesResult", "masked_patches"]


@dataclass(frozen=True)
class MaskedPatchesResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient; zero, with a graph, where nothing is hidden.
        accuracy: share of hidden patches whose greatest output is the teacher's, detached.
        target_entropy: mean entropy of their targets, detached.
        chance: ln K times the share of views that have hidden patches.
        formula: how `chance` comes about: `0.5 x ln 8192`.
    """

    loss: Tensor
    accuracy: Tensor
    target_entropy: Tensor
    chance: float
    formula: str


def masked_patches(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    center: Tensor | None,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> MaskedPatchesResult:
    """The loss in float32 or better; outputs are taken at hidden patches alone, so that no other is ever projected to K.

    Args:
        student, teacher: (P, K) outputs at the hidden patches, view by view: `tokens[mask]`.
        mask: (b, N) bool, True at hidden patches, P of them; of several large views, one below the other.
        center: (K,) of the teacher's patch outputs; None leaves centring out.
        student_temperature, teacher_temperature: tau_s and tau_t.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if student.ndim != 2 or student.shape != teacher.shape or mask.ndim != 2 or int(mask.sum()) != len(student):
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} outputs with {int(mask.sum())} hidden patches "
            "in the mask; expected two equal (P, K), one row for each"
        )
    if student_temperature <= 0:
        raise ValueError(f"student_temperature is {student_temperature}; expected more than 0")
    hidden = mask.sum(1, keepdim=True)
    if len(student) == 0:
        zero = precise(student).sum()  # keeps the graph, so that every rank takes the same backward
        return MaskedPatchesResult(zero, zero.detach(), zero.detach(), 0.0, "nothing hidden")
    targets = sharpen(teacher, center, teacher_temperature)
    with exact(student):
        each = F.cross_entropy(precise(student) / student_temperature, targets, reduction="none")
    weight = (1.0 / hidden.clamp(min=1)).expand_as(mask)[mask].to(each.dtype)
    right = (student.detach().argmax(1) == targets.argmax(1)).to(each.dtype).mean()
    entropy = torch.special.entr(targets).sum(1).mean()
    share, chance = int((hidden > 0).sum()) / len(mask), uniform(student.shape[1])
    formula = chance.formula if share == 1.0 else f"{share:.3g} x {chance.formula}"
    return MaskedPatchesResult((each * weight).sum() / len(mask), right, entropy, share * chance.value, formula)
