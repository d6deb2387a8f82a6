"""The loss of each kind of examples, over the scores that a task's head gives."""

from __future__ import annotations

from torch import Tensor

from multiway.batch import Batch
from multiway.losses.classification import classification
from multiway.losses.right_regions import right_regions
from multiway.losses.soft_answers import soft_answers
from multiway.methods.method import Losses, Term

__all__ = ["HEADS", "example_losses"]

HEADS = {"asked": "answer", "judged": "judge", "chosen": "choose", "pointed": "point"}
"""What a model that was tuned for a kind of examples is able to do: the ability that its head gives."""


def example_losses(kind: str, logits: Tensor, batch: Batch) -> Losses:
    """One term, called as the ability.

    Args:
        kind: of examples, one of `HEADS`.
        logits: (B, A) of answers, (B, K) of verdicts, choices or regions.
        batch: with what is right of each row.
    """
    if kind == "asked":
        assert batch.targets is not None
        asked = soft_answers(logits, batch.targets)
        term = Term(asked.loss, chance=asked.chance, formula=asked.formula)
        return Losses({HEADS[kind]: term}, report={"accuracy": asked.score})
    if kind == "pointed":
        assert batch.targets is not None and batch.boxes_mask is not None
        pointed = right_regions(logits, batch.targets, batch.boxes_mask)
        term = Term(pointed.loss, chance=pointed.chance, formula=pointed.formula)
        return Losses({HEADS[kind]: term}, report={"accuracy": pointed.score})
    assert batch.labels is not None
    found = classification(logits, batch.labels)
    chance, formula = found.chance, found.formula
    if batch.choices_mask is not None:  # what stands in for choices that are not there is no choice
        chance = float(batch.choices_mask.any(2).sum(1).double().log().mean())
        formula = "mean of ln(choices)"
    term = Term(found.loss, chance=chance, formula=formula)
    return Losses({HEADS[kind]: term}, report={"accuracy": found.accuracy})
