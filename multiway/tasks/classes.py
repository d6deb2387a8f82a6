"""What all tasks with class labels share: the rows that have one, and accuracy from scores of the classes.

Reported are `accuracy/top-1`, `accuracy/top-5` (where there are more than five classes) and `accuracy/balanced`, the mean of
the classes' recalls. Chance is the best constant answer: the share of the largest class (of the five largest), and 1 / K for K
classes that have pictures. Equal scores count as a random order (`tasks/ranking.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from multiway.data.source import DataError, Source
from multiway.tasks import statistics
from multiway.tasks.ranking import Answers, Ranking, rank_scores
from multiway.tasks.task import Metric, require_rows

__all__ = ["Labelled", "class_metrics", "labelled_rows", "ranked_classes"]


@dataclass(frozen=True)
class Labelled:
    """The rows of a source that have a class.

    Attributes:
        rows: (N,) their numbers; a picture counts once for each class it has.
        labels: (N,) int64 their classes.
        pictures: (N,) int64 their `image_id`.
        unlabelled: rows that were left out because their class is not known.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    pictures: NDArray[np.int64]
    unlabelled: int


def labelled_rows(task: str, source: Source) -> Labelled:
    """Read the labels; no picture is decoded.

    Raises:
        DataError: if the source has no rows, no class names or no labels, or a label that names no class.
    """
    require_rows(task, source)
    if not source.classes:
        raise DataError(
            f"{source.name}@{source.split} has no class names, and task `{task}` is about classes; use labelled data: a folder "
            "with a sub-folder per class, a caption file with a `label` column, imagenet:FOLDER, emoji or digits"
        )
    seen: dict[tuple[int, int], int] = {}
    unlabelled = 0
    for number in range(len(source)):
        row = source.row(number)
        if row.label >= len(source.classes):
            raise DataError(
                f"{row.where or row.key} has label {row.label}, but {source.name} names only {len(source.classes)} classes "
                f"(0 to {len(source.classes) - 1}); complete the list of names, or correct the row"
            )
        if row.label < 0:
            unlabelled += 1
        else:
            seen.setdefault((row.image_id, row.label), number)
    if not seen:
        raise DataError(
            f"all {len(source):,} rows of {source.name}@{source.split} have label -1 (unknown); task `{task}` needs true "
            "labels: name a split that has them"
        )
    pictures, labels = np.array(list(seen), dtype=np.int64).T
    return Labelled(np.array(list(seen.values()), dtype=np.int64), labels, pictures, unlabelled)


def ranked_classes(scores: Tensor, labels: NDArray[np.int64]) -> Ranking:
    """Classes ranked for each picture, by (N, K) scores, higher for better, on the CPU."""
    answers = Answers(labels, np.arange(len(labels) + 1, dtype=np.int64))
    return rank_scores(lambda some: scores[some], len(scores), scores.shape[1], answers)


def class_metrics(
    ranking: Ranking,
    labelled: Labelled,
    name: str = "",
    *,
    most: int = 5,
    resamples: int = statistics.RESAMPLES,
    seed: int = 0,
) -> Iterator[Metric]:
    """Accuracy with its intervals, which resample pictures, and chance.

    Args:
        ranking: classes for each labelled row.
        labelled: what they are.
        name: put behind the metrics' names: `[k=10]`.
        most: classes that a classifier can name at most; the five best of a vote of three would be two at random.
    """
    options = {"resamples": resamples, "seed": seed}
    labels, n = labelled.labels, len(labelled.labels)
    shares = np.sort(np.bincount(labels) / n)[::-1]
    for k in (1, 5):
        if k <= most and k < max(2, ranking.gallery):
            interval = statistics.mean(ranking.hits(k), labelled.pictures, **options)
            yield Metric(f"accuracy/top-{k}{name}", *interval, n=n, chance=float(shares[:k].sum()))
    balanced = statistics.balanced_mean(ranking.hits(1), labels, **options)
    yield Metric(f"accuracy/balanced{name}", *balanced, n=n, chance=1.0 / int((shares > 0).sum()))
