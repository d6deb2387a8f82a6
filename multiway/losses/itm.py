"""Image-text matching (ITM): is this picture's this text? With negatives mined from the batch.

Li et al., ALBEF, 2021, arXiv 2107.07651, section 3.2, equation 5. Each pair is scored beside two that do not belong
together: its picture with a wrong text, its text with a wrong picture. Over these 3B rows, with p the softmax of two logits,

    L = - mean_i [ y_i log p_i + (1 - y_i) log(1 - p_i) ]

A head that looks at nothing says 1/3 and scores H(1/3) = 0.6365.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.chance import binary
from multiway.losses.same import Same

__all__ = ["HardNegatives", "ItmResult", "hard_negatives", "itm"]


@dataclass(frozen=True)
class HardNegatives:
    """A wrong partner for each row of the batch.

    Attributes:
        text_of_image: (B,) int64, which text is shown with picture i.
        image_of_text: (B,) int64, which picture is shown with text i.
        found: (B,) bool, False where the batch holds no wrong partner at all (every row shows the same picture or text).
    """

    text_of_image: Tensor
    image_of_text: Tensor
    found: Tensor


@torch.no_grad()
def hard_negatives(
    similarity: Tensor, same: Same, hardness: float | Tensor = 1.0, least: float = 1e-6
) -> HardNegatives:
    """Sample a negative for each row, the more likely the more it resembles a match (section 3.2, last paragraph).

    P(j | i) is proportional to h softmax(s_i)_j + (1 - h) / B over the j that are not the same as i. h = 1 is the paper;
    h = 0 samples evenly; between them lies a curriculum from easy to hard. Rows that share a picture or a text are never
    drawn.

    Args:
        similarity: (B, B) logits s, pictures x texts: cosines over the temperature. Across ranks: `methods/partners.py`.
        same: which of the rows belong together.
        hardness: h in [0, 1].
        least: added to every weight. A saturated softmax underflows to zero in whole rows, from which nothing can be drawn;
            BLIP's released code has 1e-4.
    """
    rows = len(similarity)
    own = torch.arange(rows, device=similarity.device)
    belongs = torch.eye(rows, dtype=torch.bool, device=similarity.device)
    if same:
        belongs = belongs | same.mask(0, rows)
    floor = least + (1.0 - hardness) / rows
    # A row without any wrong partner draws itself, and is left out of the loss.
    alone = belongs.all(1, keepdim=True)
    itself = F.one_hot(own, rows).float()

    def sample(logits: Tensor) -> Tensor:
        weights = (hardness * logits.float().softmax(1) + floor).masked_fill(belongs, 0.0)
        return torch.multinomial(torch.where(alone, itself, weights), 1).squeeze(1)

    return HardNegatives(sample(similarity), sample(similarity.T), ~alone.squeeze(1))


@dataclass(frozen=True)
class ItmResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient.
        accuracy: share of the 3B rows that are judged rightly, detached.
        positive, negative: mean p(match) of pairs and of mined negatives, detached.
        chance, formula: entropy of the share of pairs among the rows.
    """

    loss: Tensor
    accuracy: Tensor
    positive: Tensor
    negative: Tensor
    chance: float
    formula: str


def itm(logits: Tensor, found: Tensor) -> ItmResult:
    """Matching loss in float32.

    Args:
        logits: (3B, 2), columns no and yes: the B pairs, then B pictures with wrong texts, then B texts with wrong
            pictures.
        found: (B,) bool, rows whose negatives count.

    Raises:
        ValueError: if the shapes do not fit.
    """
    rows = len(found)
    if logits.shape != (3 * rows, 2):
        raise ValueError(
            f"logits are {tuple(logits.shape)}; expected ({3 * rows}, 2): pairs, wrong texts, wrong pictures"
        )
    logits = logits.float()
    target = torch.zeros(3 * rows, dtype=torch.int64, device=logits.device)
    target[:rows] = 1
    counts = torch.cat([torch.ones_like(found), found, found])
    losses = F.cross_entropy(logits, target, reduction="none")
    total = counts.sum()
    matched = logits.detach().softmax(1)[:, 1]
    wrong = counts[rows:]
    none = torch.zeros((), device=logits.device)
    chance = binary(1.0 / 3.0) if bool(found.all()) else binary(rows / int(total))
    return ItmResult(
        loss=(losses * counts).sum() / total,
        accuracy=((matched > 0.5) == (target == 1))[counts].float().mean(),
        positive=matched[:rows].mean(),
        negative=matched[rows:][wrong].mean() if bool(wrong.any()) else none,
        chance=chance.value,
        formula=chance.formula,
    )
