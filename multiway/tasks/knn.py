"""Weighted nearest neighbours on frozen features: how far like pictures lie together, with nothing trained.

Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, arXiv 1805.01978, section 3.4,
as DINO (Caron et al., 2021, arXiv 2104.14294; `eval_knn.py`) runs it. With v a picture's feature at length 1, the k training
pictures N_k(v) nearest by cosine vote for their classes:

    w_c = sum_{i in N_k(v)} exp(<v, v_i> / tau) [c_i = c],    tau = 0.07

Wu et al. take k = 200, DINO's script 10, 20, 100 and 200 with 20 the usual best. Votes are divided by their sum here, which
changes no order. An infinite `temperature` counts neighbours alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.abilities import require
from multiway.data.source import DataError, Source
from multiway.tasks.classes import Labelled, class_metrics, ranked_classes
from multiway.tasks.frozen import FrozenFeatures, FrozenTask
from multiway.tasks.ranking import Ranking
from multiway.tasks.task import Metric, Result, collect

__all__ = ["Knn", "KnnDetails", "nearest", "votes"]

_CHUNK = 1 << 23  # cosines held at once: 32 MB


@torch.no_grad()
def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows of `bank` nearest to each query, best first: cosines (M, k) float32 and numbers (M, k) int64.

    Args:
        queries: (M, D), of any length.
        bank: (N, D), N >= k.
    """
    queries, bank = F.normalize(queries.float(), dim=1), F.normalize(bank.float(), dim=1)
    found = [(some @ bank.T).topk(k) for some in queries.split(max(1, _CHUNK // len(bank)))]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


def votes(cosines: Tensor, labels: Tensor, classes: int, temperature: float = 0.07) -> Tensor:
    """Shares of the votes for each class: (M, classes) float64.

    Args:
        cosines: (M, k) of the neighbours.
        labels: (M, k) int64 classes of the neighbours.
        classes: how many there are.
        temperature: tau; infinite counts every neighbour alike.
    """
    weights = (cosines.double() / temperature).softmax(1)  # exp(s / tau) over its sum, without overflow at a small tau
    return weights.new_zeros(len(cosines), classes).scatter_add_(1, labels, weights)


@dataclass(frozen=True)
class KnnDetails:
    """What became of each picture.

    Attributes:
        classes: K names.
        train, test: the rows that vote, and those that are measured.
        neighbours: (M, k) int64 numbers in `train.rows` of the nearest, for the greatest k.
        cosines: (M, k) float32 with them.
        rankings: by k, classes ranked for each picture.
    """

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    neighbours: np.ndarray
    cosines: np.ndarray
    rankings: dict[int, Ranking]


@dataclass(frozen=True)
class Knn(FrozenTask):
    """Classifies pictures by their nearest neighbours among labelled ones, on frozen features.

    The training split is what votes. For what is not named here see `FrozenTask`.

    Attributes:
        ks: numbers of neighbours that vote.
        temperature: tau.
    """

    name: ClassVar[str] = "knn"
    title: ClassVar[str] = "Nearest neighbours"

    ks: tuple[int, ...] = (10, 20)
    temperature: float = 0.07

    def run(self, model: Any, source: Source) -> Result:
        """Encode both splits once, find the neighbours once, let each k vote.

        Raises:
            LacksAbility: if the model does not encode pictures, or lacks the features that are asked for.
            DataError: without labels or a training split, or if that has fewer pictures than vote.
        """
        require(model, self.needs, self.name)
        if not self.ks or min(self.ks) < 1 or not self.temperature > 0:
            raise ValueError(
                f"expected ks of at least 1 and a temperature above 0; given {self.ks}, {self.temperature}"
            )
        frozen = FrozenFeatures.of(self, model, source)
        if len(frozen.train.rows) < max(self.ks):
            raise DataError(
                f"{max(self.ks)} neighbours cannot be found among {len(frozen.train.rows)} labelled pictures of "
                f"{source.name}@{self.train}; ask for fewer (--ks) or name a larger split (--train)"
            )
        cosines, numbers = (each.cpu() for each in nearest(frozen.test_features, frozen.train_features, max(self.ks)))
        labels = torch.from_numpy(frozen.train.labels)[numbers]
        rankings = {
            k: ranked_classes(
                votes(cosines[:, :k], labels[:, :k], len(frozen.classes), self.temperature), frozen.test.labels
            )
            for k in self.ks
        }
        details = KnnDetails(frozen.classes, frozen.train, frozen.test, numbers.numpy(), cosines.numpy(), rankings)
        return collect(self, source, self.metrics(details), details)

    def metrics(self, details: KnnDetails) -> Iterator[Metric]:
        """All accuracies of each k."""
        for k, ranking in details.rankings.items():
            yield from class_metrics(
                ranking, details.test, f"[k={k}]", most=k, resamples=self.resamples, seed=self.seed
            )
