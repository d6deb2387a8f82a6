"""What generation begins with and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Prompts", "Texts"]


@dataclass(frozen=True)
class Texts:
    """Written texts; those of one picture follow each other, best or first drawn first.

    Attributes:
        ids: (R, L) token ids, prompt and end token included, padded on the right.
        mask: (R, L) bool, True at tokens of the text.
        scores: (R,). `greedy`, `nucleus`: log-probability of what follows the prompt, by the model's own distribution.
            `beam`: what the texts are ranked by, the sum of log-probabilities after penalties over length^p.
    """

    ids: Tensor
    mask: Tensor
    scores: Tensor


class Prompts:
    """The first tokens of each text, of different lengths.

    Where a text's prompt is longer than another's, its tokens are put in place of those that would be written. So nothing
    is padded on the left, and every text has the positions it would have alone.

    Args:
        ids: (P, L) token ids, the start token first, padded on the right.
        mask: (P, L) bool, True at tokens of the prompt; None when all are.

    Raises:
        ValueError: if a prompt is empty, or its tokens do not come first.
    """

    def __init__(self, ids: Tensor, mask: Tensor | None = None) -> None:
        self.ids = ids
        self.lengths = torch.full((len(ids),), ids.shape[1], device=ids.device) if mask is None else mask.sum(1)
        first = torch.arange(ids.shape[1], device=ids.device) < self.lengths[:, None]
        if len(ids) == 0 or int(self.lengths.min()) < 1 or (mask is not None and not torch.equal(first, mask.bool())):
            raise ValueError(
                f"prompts of shape {tuple(ids.shape)} and lengths {self.lengths.tolist()}; expected at least a start token in "
                "each, tokens first and padding after them"
            )
        self.shortest = int(self.lengths.min())

    def forced(self, at: int, rows: Tensor) -> tuple[Tensor, Tensor] | None:
        """Which of some rows have a prompt token at position `at`, and which token: (R,) bool and (R,) ids."""
        if at >= self.ids.shape[1]:
            return None
        held = at < self.lengths[rows]
        return (held, self.ids[rows, at]) if bool(held.any()) else None
