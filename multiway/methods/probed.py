"""A linear probe on the side: what labels that a method does not see could be read off its features by, while it trains.

A linear classifier on features whose gradient is stopped; the method learns nothing from it.
"""

from __future__ import annotations

from torch import Tensor, nn

from multiway.batch import Batch
from multiway.losses.classification import classification
from multiway.methods.method import Losses, Term

__all__ = ["add_probe", "probe_of"]


def probe_of(width: int, classes: int) -> nn.Linear | None:
    """The classifier on features (B, `width`); None where there is nothing to tell apart."""
    return nn.Linear(width, classes) if classes > 1 else None


def add_probe(found: Losses, probe: nn.Linear | None, features: Tensor | None, batch: Batch) -> None:
    """Add the term `probe` and the report `probe_accuracy` to what a step has found, over the rows that have a label.

    Args:
        found: is added to; left as it is where there is no probe or no label.
        probe: of `probe_of`.
        features: (B, W), detached; None where there is no probe.
        batch: with labels.
    """
    if probe is None or features is None or batch.labels is None or not bool((batch.labels >= 0).any()):
        return
    known = batch.labels >= 0
    read = classification(probe(features[known]), batch.labels[known])
    found.terms["probe"] = Term(read.loss, chance=read.chance, formula=read.formula)
    found.report["probe_accuracy"] = read.accuracy
