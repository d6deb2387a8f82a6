"""Image-text matching (ITM) with random negatives: half of the texts are shown with another row's picture.

Kim et al., ViLT, 2021, arXiv 2102.03334, section 3.2; Dou et al., METER, 2022, arXiv 2111.02387, section 3.2. The papers
replace a picture with probability 0.5, the released code of both in exactly half of the rows; so does this. Over the B rows,
with p the softmax of two logits,

    L = - mean_i [ y_i log p_i + (1 - y_i) log(1 - p_i) ]

A head that looks at nothing says 1/2 and scores H(1/2) = ln 2. Negatives mined by similarity: `losses/itm.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.chance import binary
from multiway.losses.itm import ItmResult
from multiway.losses.same import Same

__all__ = ["RandomPairs", "itm_random", "random_pairs"]


@dataclass(frozen=True)
class RandomPairs:
    """Which picture each text is shown with.

    Attributes:
        image_of_text: (B,) int64, row of the picture that text i is shown with; i where they belong together.
        matched: (B,) bool.
    """

    image_of_text: Tensor
    matched: Tensor


@torch.no_grad()
def random_pairs(rows: int, same: Same, device: torch.device | str = "cpu") -> RandomPairs:
    """Leave half of the rows as they are and give the others a picture that does not belong to them.

    Wrong pictures are drawn evenly among the rows that share neither picture nor caption; a row for which the batch holds
    none keeps its own. Draws from torch's generator.

    Args:
        rows: B; of an odd number the smaller half is kept.
        same: which rows belong together.
    """
    belongs = torch.eye(rows, dtype=torch.bool, device=device)
    if same:
        belongs = belongs | same.mask(0, rows)
    own = torch.arange(rows, device=device)
    alone = belongs.all(1)
    weights = torch.where(alone[:, None], torch.eye(rows, device=device), (~belongs).float())
    others = torch.multinomial(weights, 1).squeeze(1) if rows else own
    matched = (torch.randperm(rows, device=device) < rows // 2) | alone
    return RandomPairs(torch.where(matched, own, others), matched)


def itm_random(logits: Tensor, matched: Tensor) -> ItmResult:
    """Matching loss in float32.

    Args:
        logits: (B, 2), columns no and yes.
        matched: (B,) bool, the answers.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if logits.shape != (len(matched), 2):
        raise ValueError(f"logits are {tuple(logits.shape)}; expected ({len(matched)}, 2): no and yes for each row")
    logits = logits.float()
    loss = F.cross_entropy(logits, matched.long())
    yes = logits.detach().softmax(1)[:, 1]
    chance = binary(int(matched.sum()) / max(1, len(matched)))
    return ItmResult(
        loss=loss,
        accuracy=((yes > 0.5) == matched).float().mean(),
        positive=_mean(yes, matched),
        negative=_mean(yes, ~matched),
        chance=chance.value,
        formula=chance.formula,
    )


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
