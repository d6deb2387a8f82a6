"""The linear probe: how much a linear classifier can read off frozen features.

Logistic regression on features that are standardised by the training split, as CLIP (Radford et al., 2021, arXiv 2103.00020,
appendix A.3) does it: full-batch L-BFGS, with the strength of the l2 penalty chosen on a part of the training split and the
classifier fitted again to all of it. That part is a tenth of the pictures here, and the choice by its cross entropy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from multiway.abilities import require
from multiway.data.few_labels import FewLabels
from multiway.data.source import DataError, Source
from multiway.tasks.classes import Labelled, class_metrics, ranked_classes
from multiway.tasks.frozen import FrozenFeatures, FrozenTask
from multiway.tasks.logistic import Logistic, Standard, choose_l2, fit_logistic
from multiway.tasks.ranking import Ranking
from multiway.tasks.task import Metric, Result, collect

__all__ = ["LinearProbe", "ProbeDetails"]


@dataclass(frozen=True)
class ProbeDetails:
    """The classifier, and what became of each picture.

    Attributes:
        classes: K names.
        train, test: the rows that it was fitted to, and those that are measured.
        standard: what was done to features.
        fitted: to all of `train`.
        tried: held-out cross entropy by l2; empty where that was given.
        ranking: classes ranked for each picture.
    """

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    standard: Standard
    fitted: Logistic
    tried: dict[float, float]
    ranking: Ranking


@dataclass(frozen=True)
class LinearProbe(FrozenTask):
    """Classifies pictures by logistic regression on frozen features.

    The seed draws the tenth that is held out as well, and the share of labels. For what is not named here see `FrozenTask`.

    Attributes:
        l2: of the penalty; 0 chooses it on a tenth of the training pictures.
        l2s: to choose from.
        labels: which of the training split's labels are seen: a share (`0.01`), or a file that lists pictures
            (`data/few_labels.py`); empty for all.
        iterations: of L-BFGS, at most, for each fit.
    """

    name: ClassVar[str] = "probe"
    title: ClassVar[str] = "Linear probe"

    l2: float = 0.0
    l2s: tuple[float, ...] = (10.0, 1.0, 1e-1, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
    labels: str = ""
    iterations: int = 1000

    def run(self, model: Any, source: Source) -> Result:
        """Encode both splits once, choose l2, fit, classify.

        Raises:
            LacksAbility: if the model does not encode pictures, or lacks the features that are asked for.
            DataError: without labels or a training split, if that is too small to hold out any of it, or lacks listed pictures.
        """
        require(model, self.needs, self.name)
        seen = None if self.source is None else FewLabels(self.labels, self.seed).seen(self.source)
        frozen = FrozenFeatures.of(replace(self, source=seen), model, source)
        standard = Standard.of(frozen.train_features)
        known = standard(frozen.train_features)
        labels = torch.from_numpy(frozen.train.labels).to(known.device)
        l2, tried = self.l2, dict[float, float]()
        if not l2:
            away = torch.from_numpy(held_out(frozen.train.pictures, self.seed)).to(known.device)
            if not 0 < int(away.sum()) < len(away):
                raise DataError(
                    f"{len(away)} labelled pictures of {source.name}@{self.train} are too few to hold a tenth of them out; name a "
                    "larger training split (--train), or give the penalty (l2)"
                )
            l2, tried = choose_l2(known, labels, away, len(frozen.classes), self.l2s, self.iterations)
        fitted = fit_logistic(known, labels, len(frozen.classes), l2, iterations=self.iterations)
        logits = fitted.logits(standard(frozen.test_features)).cpu()
        details = ProbeDetails(
            frozen.classes,
            frozen.train,
            frozen.test,
            standard,
            fitted,
            tried,
            ranked_classes(logits, frozen.test.labels),
        )
        return collect(self, source, self.metrics(details), details)

    def metrics(self, details: ProbeDetails) -> Iterator[Metric]:
        """All accuracies."""
        yield from class_metrics(details.ranking, details.test, resamples=self.resamples, seed=self.seed)


def held_out(pictures: np.ndarray, seed: int) -> np.ndarray:
    """(N,) bool: True for the rows of a tenth of the different pictures, at least one of them.

    Args:
        pictures: (N,) int64 `image_id`; rows of one picture go together.
    """
    different, place = np.unique(pictures, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(different))
    return order[place] < max(1, len(different) // 10)
