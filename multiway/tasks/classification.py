"""Classification by a model that was tuned for these classes: every picture to one of them.

The head is `methods/classifier.py`; `multiway finetune RUN --task classification` trains it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from multiway.abilities import require
from multiway.data.source import DataError, Source
from multiway.tasks import statistics
from multiway.tasks.classes import Labelled, class_metrics, labelled_rows, ranked_classes
from multiway.tasks.embed import encode_images
from multiway.tasks.ranking import Ranking
from multiway.tasks.task import Metric, Result, collect

__all__ = ["Classification", "ClassificationDetails"]


@dataclass(frozen=True)
class ClassificationDetails:
    """What became of each picture.

    Attributes:
        classes: K names.
        test: the rows that were classified.
        ranking: classes ranked for each of them.
    """

    classes: tuple[str, ...]
    test: Labelled
    ranking: Ranking

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K) number of pictures of the row's class that were taken for the column's."""
        k = len(self.classes)
        return np.bincount(self.test.labels * k + self.ranking.top[:, 0], minlength=k * k).reshape(k, k)


@dataclass(frozen=True)
class Classification:
    """Classifies pictures by a head that was tuned for their classes.

    Attributes:
        batch: pictures decoded and encoded at a time.
        resamples, seed: of the bootstrap.
    """

    name: ClassVar[str] = "classification"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "classify")

    batch: int = 256
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def run(self, model: Any, source: Source) -> Result:
        """Classify every labelled picture once.

        Raises:
            LacksAbility: if the model was not tuned to classify.
            DataError: if the source has no rows or labels, or other classes than the model was tuned for.
        """
        require(model, self.needs, self.name)
        test = labelled_rows(self.name, source)
        if tuple(model.classes) != tuple(source.classes):
            mine, theirs = list(model.classes), list(source.classes)
            other = next((f"{a!r} and {b!r}" for a, b in zip(mine, theirs, strict=False) if a != b), "the number")
            raise DataError(
                f"the model was tuned for {len(mine)} classes and {source.name}@{source.split} has {len(theirs)}, which differ "
                f"first in {other}; name data with the same classes, or tune for these: multiway finetune RUN --task "
                f"classification --data {source.name}"
            )
        scores = []
        for start in range(0, len(test.rows), self.batch):
            some = test.rows[start : start + self.batch].tolist()
            scores.append(model.classify(encode_images(model, source, some, self.batch, tokens=True)))
        ranking = ranked_classes(torch.cat(scores), test.labels)
        details = ClassificationDetails(tuple(source.classes), test, ranking)
        return collect(self, source, self.metrics(details), details)

    def metrics(self, details: ClassificationDetails) -> Iterator[Metric]:
        """All accuracies."""
        yield from class_metrics(details.ranking, details.test, resamples=self.resamples, seed=self.seed)
