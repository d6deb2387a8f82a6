"""Frozen features: what nearest neighbours and probes stand on, and how they come by a training split.

A task is given one split, the one that it measures. These tasks learn something from another first: whoever opens the data
hands that over too (`teach`), a run from its folder on the command line, or a method in the middle of its training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multiway.abilities import LacksAbility
from multiway.data.open import parse
from multiway.data.source import DataError, Source
from multiway.nn.pool import masked_mean
from multiway.tasks import statistics
from multiway.tasks.classes import Labelled, labelled_rows
from multiway.tasks.embed import encode_images
from multiway.tasks.task import Task

__all__ = ["Features", "FrozenFeatures", "FrozenTask", "LearnsFirst", "picture_features", "teach"]

Features = Literal["auto", "embedding", "pooled"]
"""Which vector of a picture is meant: its embedding in the shared space, the mean of its last tokens, or whichever there is."""


@runtime_checkable
class LearnsFirst(Task, Protocol):
    """A task that learns from a training split before it measures another."""

    @property
    def train(self) -> str:
        """Name of the training split, of the same data unless it is `data@split`."""
        ...

    def taught(self, source: Source, /) -> Task:
        """The task with its training split at hand, as it can be run."""
        ...


def teach(task: Task, data: str, open_data: Callable[[str], Source]) -> Task:
    """The task, given its training split if it is one that learns from any.

    Args:
        task: any.
        data: what is measured, `name[:path][@split]`.
        open_data: opens what is named like that.

    Raises:
        DataError: if that split cannot be opened.
    """
    if not isinstance(task, LearnsFirst):
        return task
    named = task.train if "@" in task.train else str(replace(parse(data), split=task.train))
    return task.taught(open_data(named))


@dataclass(frozen=True, kw_only=True)
class FrozenTask:
    """The settings that every task on frozen features has; what is learnt from them, and how, is each one's own.

    Attributes:
        title: what a report calls the task.
        features: `embedding`, `pooled`, or `auto`: the first of them that the model has.
        train: the split that is learnt from, of the same data; or `data@split`.
        batch: pictures decoded and encoded at a time.
        resamples: of the bootstrap over pictures.
        seed: of the bootstrap, and of all else that is drawn.
        source: the opened training split (`taught`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ("encode_image",)

    features: Features = "auto"
    train: str = "train"
    batch: int = 256
    resamples: int = statistics.RESAMPLES
    seed: int = 0
    source: Source | None = field(default=None, repr=False, compare=False)

    def taught(self, source: Source) -> Self:
        """With the split that is learnt from."""
        return replace(self, source=source)


@torch.no_grad()
def picture_features(
    model: Any, source: Source, rows: Sequence[int], which: Features = "auto", batch: int = 256
) -> Tensor:
    """One vector for each picture, as `encode_image` gives it or pooled from its tokens a batch at a time.

    Args:
        model: has `encode_image`.
        source: where the pictures come from.
        rows: numbers of rows in `source`, n of them.
        which: `embedding` (n, D); `pooled`, the mean of the last tokens (n, W); `auto`, the first if the model has one.
        batch: pictures decoded and encoded at a time.

    Raises:
        LacksAbility: if an embedding is asked for and the model has none.
    """
    parts = []
    for start in range(0, len(rows), batch):
        encoded = encode_images(model, source, rows[start : start + batch], batch, tokens=which == "pooled")
        if which != "pooled" and encoded.has_embedding:
            parts.append(encoded.embedding)
        elif which == "embedding":
            raise LacksAbility(
                "this model has no embedding of a picture, which features=embedding asks for; take features=pooled, the mean "
                "of its tokens"
            )
        elif encoded.tokens is None:
            raise LacksAbility("this model keeps no tokens, which features=pooled asks for; take features=embedding")
        else:
            parts.append(masked_mean(encoded.tokens.float(), encoded.mask))
    return torch.cat(parts)


@dataclass(frozen=True)
class FrozenFeatures:
    """Both splits, every picture encoded once.

    Attributes:
        classes: their names.
        train, test: which rows they are.
        train_features: (N, D) float32.
        test_features: (M, D) float32.
    """

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    train_features: Tensor
    test_features: Tensor

    @classmethod
    def of(
        cls,
        task: FrozenTask,
        model: Any,
        test: Source,
        wanted: Callable[[Labelled], NDArray[np.bool_]] | None = None,
    ) -> Self:
        """Encode what has a label.

        Args:
            task: what asks, taught.
            model: has `encode_image`.
            test: to be measured.
            wanted: says of the labelled rows of the training split which are learnt from, (N,); the others are not encoded.
                None: all.

        Raises:
            DataError: without a training split, if the two name different classes, or if a picture is in both.
            LacksAbility: from `picture_features`.
        """
        name, train = task.name, task.source
        measured = labelled_rows(name, test)
        if train is None:
            raise DataError(
                f"task `{name}` learns from a training split, and was given none; hand it over first: "
                f"task.taught(open_source('{test.name}@train')).run(model, source)"
            )
        here, there = f"{test.name}@{test.split}", f"{train.name}@{train.split}"
        if train.classes != test.classes:
            raise DataError(
                f"task `{name}`: {there} has {len(train.classes)} classes and {here} {len(test.classes)}, which are not the "
                "same in the same order; name a training split of the same data"
            )
        learnt = labelled_rows(name, train)
        shared = np.intersect1d(measured.pictures, learnt.pictures)
        if len(shared):
            raise DataError(
                f"task `{name}`: {len(shared):,} of {len(np.unique(measured.pictures)):,} pictures of {here} are in {there} too, "
                "so that what is measured would be memory; name another training split (--train) or another test split"
            )
        if wanted is not None:
            some = wanted(learnt)
            learnt = replace(learnt, rows=learnt.rows[some], labels=learnt.labels[some], pictures=learnt.pictures[some])
        rows = learnt.rows.tolist(), measured.rows.tolist()
        features = (
            picture_features(model, train, rows[0], task.features, task.batch),
            picture_features(model, test, rows[1], task.features, task.batch),
        )
        device = getattr(model, "device", torch.device("cpu"))
        return cls(test.classes, learnt, measured, *(each.to(device) for each in features))
