"""Tasks on annotated examples: what each makes of an example to learn from it, and how it scores what a model says.

A task of this kind is a file: the kind of examples it takes, how many pictures each is about, what a classifier chooses among,
and its metrics. Readers (`data/annotated/`) supply the examples, `FineTune` the head, the loop the training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from multiway.abilities import Encoded
from multiway.data.annotated.scenes import ANNOTATIONS
from multiway.data.example_loader import Wanted
from multiway.data.examples import Examples, Kind
from multiway.data.source import DataError
from multiway.tasks import statistics
from multiway.tasks.embed import encode_images, encode_texts
from multiway.tasks.task import Metric, Result, Task

__all__ = ["ExampleTask", "accuracies", "annotation", "encoded", "require_examples"]


@runtime_checkable
class ExampleTask(Task, Protocol):
    """A task that takes `Examples` in place of a source, and that a method can be tuned for.

    Attributes:
        kind: of examples.
        pictures: that each is about.
        best: the metric that sums it up.
    """

    @property
    def kind(self) -> Kind: ...

    @property
    def pictures(self) -> int: ...

    @property
    def best(self) -> str: ...

    def answers(self, examples: Examples[Any]) -> tuple[str, ...]:
        """What a classifier tuned on these examples chooses among; empty where there is nothing to list."""
        ...

    def wanted(self, answers: Sequence[str]) -> Wanted:
        """What is learnt from an example, the list of answers being given."""
        ...

    def submission(self, result: Result) -> Any:
        """The predictions in the form in which the benchmark's server or script takes them: the text of a file, or a value that is
        written as JSON."""
        ...


def annotation(task: ExampleTask) -> str:
    """What is asked for of data that have several annotations: the task's own, or any of its kind where none is its own."""
    known = any(task.name in (name, *one.tasks) for name, one in ANNOTATIONS.items())
    return task.name if known else task.kind


def require_examples(task: str, examples: Examples[Any], kind: Kind, pictures: int) -> None:
    """Refuse examples of another kind, or none.

    Raises:
        DataError: saying what was given.
    """
    if not isinstance(examples, Examples):
        raise DataError(f"task `{task}` takes annotated examples; given pictures with captions: {examples.name}")
    if examples.kind != kind:
        raise DataError(f"task `{task}` takes `{kind}` examples; {examples.name} has `{examples.kind}`")
    if len(examples) == 0:
        raise DataError(f"task `{task}` was given {examples.name}@{examples.split}, which has no examples")
    found = len(examples.example(0).pictures)
    if found != pictures:
        raise DataError(
            f"task `{task}` is about {pictures} pictures; the examples of {examples.name} are about {found}"
        )


def encoded(
    model: Any, examples: Examples[Any], texts: Sequence[Sequence[str]], chunk: int = 256
) -> Iterator[tuple[np.ndarray, list[Encoded], Encoded]]:
    """Examples encoded, some at a time, those about one picture together, so that it is encoded once, or twice where a chunk
    ends between them. No more than a chunk's tokens are held.

    Args:
        model: has `encode_image` and `encode_text`, keeping tokens.
        examples: any.
        texts: of each example, one or several.
        chunk: texts at a time, at least those of one example.

    Yields:
        (numbers, pictures, texts): examples in the order in which they are encoded, (n,); for each of their P pictures n x m
        rows; and as many texts, those of an example one after another.

    Raises:
        DataError: if examples are about unequal numbers of pictures.
    """
    about = [examples.example(number).pictures for number in range(len(examples))]
    odd = next((number for number, each in enumerate(about) if len(each) != len(about[0])), None)
    if odd is not None:
        raise DataError(
            f"{examples.example(odd).where} is about {len(about[odd])} pictures, the first example about {len(about[0])}; a "
            "task takes examples about equally many"
        )
    pictures = np.array(about, dtype=np.int64)
    order = np.lexsort(pictures.T[::-1])
    ends = np.cumsum([len(texts[number]) for number in order])
    start = 0
    while start < len(order):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + chunk, side="right")))
        numbers, start = order[start:stop], stop
        different, places = np.unique(pictures[numbers], return_inverse=True)
        shown = encode_images(model, examples.pictures, different.tolist(), tokens="only")
        said = [text for number in numbers for text in texts[number]]
        counts = torch.tensor([len(texts[number]) for number in numbers])
        rows = torch.from_numpy(places.reshape(len(numbers), -1)).repeat_interleave(counts, 0)
        yield numbers, [shown.rows(each) for each in rows.unbind(1)], encode_texts(model, said, tokens="only")


def accuracies(
    name: str,
    right: Sequence[float],
    units: Sequence[Any],
    groups: Sequence[str],
    chance: float | None,
    chances: dict[str, float] | None = None,
    resamples: int = statistics.RESAMPLES,
    seed: int = 0,
) -> Iterator[Metric]:
    """Mean score over examples, then over each group of them, with bootstrap intervals over pictures.

    Args:
        name: of the metric.
        right: (N,) scores in [0, 1].
        units: (N,) what was drawn when the test set was made: the picture of each.
        groups: (N,) names; empty ones are in no group.
        chance: of the whole.
        chances: of groups.
    """
    values, (_, numbers) = np.array(right, dtype=np.float64), np.unique(np.array(units), return_inverse=True)
    interval = statistics.mean(values, numbers, resamples=resamples, seed=seed)
    yield Metric(name, *interval, n=len(values), chance=chance)
    kinds = np.array(groups)
    for group in sorted({each for each in groups if each}):
        some = kinds == group
        interval = statistics.mean(values[some], numbers[some], resamples=resamples, seed=seed)
        yield Metric(f"{name}[{group}]", *interval, n=int(some.sum()), chance=(chances or {}).get(group))
