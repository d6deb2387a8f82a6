"""Text assignment (TA): does this text belong to the left picture, to the right one, or to neither?

Li et al., ALBEF, 2021, arXiv 2107.07651, section 5 (NLVR2), and its released code. Each text is shown with two pictures, each
arrangement with probability 1/3:

    0   its own picture left, a wrong one right
    1   a wrong one left, its own right
    2   two wrong ones

and L = - mean_i log softmax(l_i)_{y_i} over three classes: `losses/classification.py`. A head that looks at nothing scores ln 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multiway.losses.same import Same

__all__ = ["NEITHER", "Arrangement", "arrange", "thirds"]

LEFT, RIGHT, NEITHER = 0, 1, 2
_UNKNOWN = -1  # the class that `classification` leaves out

# SplitMix64 (Steele, Lea and Flood, 2014) in signed arithmetic, which wraps alike on every device.
_GAMMA, _FIRST, _SECOND = (
    each - 2**64 for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)  # fmt: skip
_SITE = 0x7441  # keeps these draws apart from others of the same coordinates


def _mix(state: Tensor) -> Tensor:
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        # The mask makes a shift logical that would copy the sign.
        state = (state ^ ((state >> shift) & (2 ** (64 - shift) - 1))) * factor
    return state


def thirds(samples: Tensor, epoch: int) -> Tensor:
    """(B,) rows in the source -> (B,) int64, 0, 1 or 2, each as often as the others.

    A hash of sample and epoch: the same in a replay and on any number of ranks, another in every epoch.
    """
    state = _mix(_mix(torch.full_like(samples, epoch) + _SITE + _GAMMA) * 3 + samples + _GAMMA)
    return ((state >> 33) & (2**31 - 1)) % 3


@dataclass(frozen=True)
class Arrangement:
    """Which pictures each text is shown with.

    Attributes:
        left, right: (B,) int64, rows of the pictures.
        labels: (B,) int64, 0 left, 1 right, 2 neither; -1 where the batch holds too few wrong pictures, which counts for nothing.
    """

    left: Tensor
    right: Tensor
    labels: Tensor


@torch.no_grad()
def arrange(
    similarity: Tensor,
    same: Same,
    labels: Tensor,
    hardness: float = 1.0,
    least: float = 1e-6,
) -> Arrangement:
    """Draw the wrong pictures, the more likely the more they resemble the right one.

    P(j | i) is proportional to h softmax(s_i)_j + (1 - h) / B over the j that share neither picture nor caption with i; h = 1 is
    the released code. The second of two wrong pictures is another than the first. Draws from torch's generator.

    Args:
        similarity: (B, B) logits s, pictures x pictures: cosines over the temperature.
        same: which rows belong together.
        labels: (B,) the arrangement of each text, as `thirds` gives it.
        hardness: h in [0, 1].
        least: added to every weight; see `hard_negatives`.

    Raises:
        ValueError: if the shapes do not fit.
    """
    rows = len(labels)
    if similarity.shape != (rows, rows):
        raise ValueError(f"similarities are {tuple(similarity.shape)}; expected ({rows}, {rows}), one row a text")
    own = torch.arange(rows, device=similarity.device)
    itself = torch.eye(rows, dtype=torch.bool, device=similarity.device)
    belongs = itself | same.mask(0, rows) if same else itself
    shows = itself if same.image_id is None else same.image_id[:, None] == same.image_id
    weights = hardness * similarity.float().softmax(1) + (1.0 - hardness) / max(1, rows) + least

    def draw(barred: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) one of the rows that are not barred, and (B,) whether there is one."""
        none = barred.all(1)
        open_to = torch.where(none[:, None], itself.to(weights.dtype), weights.masked_fill(barred, 0.0))
        return torch.multinomial(open_to, 1).squeeze(1), ~none

    wrong, found = draw(belongs)
    other, found_two = draw(belongs | shows[wrong])
    enough = found & (found_two | (labels != NEITHER))
    left = torch.where(labels == LEFT, own, wrong)
    right = torch.where(labels == RIGHT, own, torch.where(labels == NEITHER, other, wrong))
    return Arrangement(left, right, torch.where(enough, labels, _UNKNOWN))
