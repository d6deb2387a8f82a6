"""Few-shot probe: how much can be told from a few labelled pictures of each class, by ridge regression on frozen features.

Dosovitskiy et al., An Image is Worth 16x16 Words (ViT), 2021, arXiv 2010.11929, section 4.1: regularised least squares from features to
targets in {-1, 1}^K, which has an exact solution. With X the features of n shots of each class, standardised by these shots, and a
last column of 100 that stands for a bias which is hardly penalised,

    W = argmin ||X W - Y||^2 + l2 ||W||^2,    Y_ic = 1 if shot i is of class c, else -1

and a picture is of the class with the greatest score. Column, standardising and several draws are those of the authors' code
(big_vision, `evaluators/fewshot_lsr.py`), which adds 1e-5 to deviations where here a dimension that does not vary becomes 0.

The shots of a draw are a function of seed, draw and `image_id`, and the first of five are the one. Intervals are Student's, over draws:
what other shots would have given on the same test pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from multiway.abilities import require
from multiway.data.few_labels import places_in_class
from multiway.data.source import DataError, Source
from multiway.tasks import statistics
from multiway.tasks.classes import Labelled, class_metrics, ranked_classes
from multiway.tasks.frozen import FrozenFeatures, FrozenTask
from multiway.tasks.logistic import Standard
from multiway.tasks.ranking import Ranking
from multiway.tasks.task import Metric, Result, collect

__all__ = ["FewShot", "FewShotDetails", "ridge", "student_interval"]

_BIAS = 100.0


def ridge(features: Tensor, targets: Tensor, l2: float) -> Tensor:
    """The weights that minimise ||X W - Y||^2 + l2 ||W||^2: (D, K) float64.

    Args:
        features: (N, D) X.
        targets: (N, K) Y.
        l2: above 0, which makes it unique.

    Raises:
        ValueError: for other shapes, or l2 <= 0.
    """
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets) or len(features) == 0 or not l2 > 0:
        raise ValueError(
            f"features are {tuple(features.shape)}, targets {tuple(targets.shape)} and l2 {l2}; expected (N, D) and (N, K) with N at "
            "least 1, and l2 above 0"
        )
    x, y = features.double(), targets.double()
    few = len(x) < x.shape[1]  # the smaller of the two equal forms: X' (X X' + l2 I)^-1 Y, or (X' X + l2 I)^-1 X' Y
    gram = x @ x.T if few else x.T @ x
    gram.diagonal().add_(l2)
    factor = torch.linalg.cholesky(gram)
    return x.T @ torch.cholesky_solve(y, factor) if few else torch.cholesky_solve(x.T @ y, factor)


@dataclass(frozen=True)
class FewShotDetails:
    """Which shots were drawn, and what became of each picture.

    Attributes:
        classes: K names.
        train: the rows that were drawn at least once.
        test: the rows that are measured.
        shots: by (n, draw), numbers in `train.rows` of the shots.
        rankings: by n, for each draw the classes ranked for each picture.
    """

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    shots: dict[tuple[int, int], NDArray[np.int64]]
    rankings: dict[int, tuple[Ranking, ...]]


@dataclass(frozen=True)
class FewShot(FrozenTask):
    """Classifies pictures by ridge regression on frozen features of a few of each class.

    The shots are drawn from the training split, by the seed. Resamples are for where all draws score the same, or there is one. For
    what is not named here see `FrozenTask`.

    Attributes:
        shots: numbers of labelled pictures of each class.
        draws: of the shots.
        l2: of the penalty.
    """

    name: ClassVar[str] = "few-shot"
    title: ClassVar[str] = "Few-shot probe"

    shots: tuple[int, ...] = (1, 5, 10)
    draws: int = 5
    l2: float = 1024.0

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1 or self.draws < 1 or not self.l2 > 0:
            raise ValueError(
                f"expected shots and draws of at least 1 and l2 above 0; given {self.shots}, {self.draws}, {self.l2:g}"
            )

    def run(self, model: Any, source: Source) -> Result:
        """Encode what is drawn and what is measured once; fit and classify for each number of shots and each draw.

        Raises:
            LacksAbility: if the model does not encode pictures, or lacks the features that are asked for.
            DataError: without labels or a training split, or if a class has fewer pictures than shots.
        """
        require(model, self.needs, self.name)
        frozen = FrozenFeatures.of(self, model, source, lambda train: self._drawn(train, source))
        train, names = frozen.train, frozen.classes
        shots: dict[tuple[int, int], NDArray[np.int64]] = {}
        rankings: dict[int, tuple[Ranking, ...]] = {}
        for n in self.shots:
            found = []
            for draw in range(self.draws):
                # Places among those drawn are not those among all, but who comes before whom is the same.
                chosen = np.flatnonzero(places_in_class(train.labels, train.pictures, self.seed, draw) < n)
                shots[n, draw] = chosen
                scores = self._scores(frozen, chosen, len(names))
                found.append(ranked_classes(scores, frozen.test.labels))
            rankings[n] = tuple(found)
        details = FewShotDetails(names, train, frozen.test, shots, rankings)
        return collect(self, source, self.metrics(details), details)

    def _drawn(self, train: Labelled, source: Source) -> NDArray[np.bool_]:
        """(N,) which rows are a shot of any draw."""
        most, counts = max(self.shots), np.bincount(train.labels, minlength=len(source.classes))
        short = [number for number in np.flatnonzero(counts < most) if counts[number] or _has(source, int(number))]
        if short:
            worst = min(short, key=lambda number: counts[number])
            raise DataError(
                f"{most} shots cannot be drawn of {len(short)} of {len(source.classes)} classes of {source.name}@{self.train}: "
                f"{source.classes[worst]!r:.40} has {counts[worst]} labelled pictures; ask for fewer (--shots) or name a larger "
                "split (--train)"
            )
        places = [places_in_class(train.labels, train.pictures, self.seed, draw) for draw in range(self.draws)]
        return np.asarray(np.min(places, axis=0) < most)

    def _scores(self, frozen: FrozenFeatures, chosen: NDArray[np.int64], classes: int) -> Tensor:
        """(M, K) of the test pictures, by a fit to the chosen rows."""
        known = frozen.train_features[torch.from_numpy(chosen).to(frozen.train_features.device)]
        standard = Standard.of(known)
        labels = torch.from_numpy(frozen.train.labels[chosen]).to(known.device)
        weight = ridge(_with_bias(standard(known)), 2.0 * F.one_hot(labels, classes).double() - 1.0, self.l2)
        return (_with_bias(standard(frozen.test_features)) @ weight).cpu()

    def metrics(self, details: FewShotDetails) -> Iterator[Metric]:
        """All accuracies of each number of shots: means over draws."""
        for n, rankings in details.rankings.items():
            options = {"resamples": self.resamples, "seed": self.seed}
            each = [list(class_metrics(one, details.test, f"[shots={n}]", **options)) for one in rankings]
            for same in zip(*each, strict=True):
                values = [metric.value for metric in same]
                low, high = student_interval(values) if len(set(values)) > 1 else (same[0].low, same[0].high)
                yield replace(same[0], value=fmean(values), low=max(0.0, low), high=min(1.0, high))


def student_interval(values: list[float], level: float = statistics.LEVEL) -> tuple[float, float]:
    """Student's interval of the mean of n independent values: mean -+ t s / sqrt(n), t of n - 1 degrees of freedom.

    Raises:
        ValueError: for fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over {n} values; expected two or more")
    half = _student_quantile(n - 1, level) * stdev(values) / math.sqrt(n)
    return fmean(values) - half, fmean(values) + half


def _student_quantile(freedom: int, level: float) -> float:
    """The t with P(|T| < t) = level, by halving; the probability in closed form (Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4)."""

    def inside(t: float) -> float:
        theta = math.atan(t / math.sqrt(freedom))
        cosine, odd = math.cos(theta), freedom % 2
        term, total = (cosine if odd else 1.0), 0.0
        for k in range(1 + odd, freedom, 2):
            total += term
            term *= cosine * cosine * k / (k + 1)
        share = math.sin(theta) * total
        return 2.0 / math.pi * (theta + share) if odd else share

    low, high = 0.0, 1.0
    while inside(high) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < level else (low, middle)
    return high


def _with_bias(features: Tensor) -> Tensor:
    return F.pad(features, (0, 1), value=_BIAS)


def _has(source: Source, label: int) -> bool:
    """Whether a class that has no shots is one that is measured; a name that nothing is called by does no harm."""
    return any(source.row(number).label == label for number in range(len(source)))
