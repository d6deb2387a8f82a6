"""Training batches of examples: what `loader.py` is for captions, for questions, statements, choices and regions.

The same arithmetic of steps, epochs and rows; the difference is that examples point at pictures. A batch holds each picture once
(`Batch.pictures` says which row is about which), so that ten questions about one are one picture read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multiway.batch import Batch, Place, ViewSpec
from multiway.data.augment import DRAWS
from multiway.data.draws import uniforms
from multiway.data.examples import Asked, Chosen, Example, Examples, Judged, KnowsAnswered, Pointed
from multiway.data.loader import Order
from multiway.data.source import BadRow, DataError, DrawsBatches
from multiway.data.tokenizer import Tokenizer
from multiway.data.view import draw

__all__ = ["ExampleLoader", "Wanted", "usable"]

_ATTEMPTS = 20


@dataclass(frozen=True)
class Wanted:
    """What a task makes of its examples.

    Attributes:
        targets: answers as people gave them -> (A,) how right each of the task's answers is; None where labels do.
        texts: a chosen example -> the texts to choose from, and which is right; None where there are no choices.
    """

    targets: Callable[[Sequence[str]], Tensor] | None = None
    texts: Callable[[Chosen], tuple[Sequence[str], int]] | None = None


def usable(examples: Examples[Example]) -> np.ndarray:
    """Numbers of the examples that have what is to be learnt: a label, an answer, a box.

    Raises:
        DataError: if none has.
    """
    if isinstance(examples, KnowsAnswered) and examples.answered:
        return np.arange(len(examples))
    found = [number for number in range(len(examples)) if _taught(examples.example(number))]
    if not found:
        raise DataError(
            f"{examples.name}@{examples.split}: none of {len(examples)} examples has an answer to learn from; this split's are "
            "withheld: train on another"
        )
    return np.array(found)


def _taught(example: Example) -> bool:
    match example:
        case Asked():
            return bool(example.answers)
        case Judged() | Chosen():
            return example.label >= 0
        case Pointed():
            return bool(example.boxes)
    raise TypeError(f"{type(example).__name__} is no kind of example that is learnt from")


class _Steps(Dataset[Batch]):
    """Step number -> Batch; what DataLoader's workers run."""

    def __init__(
        self,
        examples: Examples[Example],
        rows: np.ndarray,
        order: Order,
        view: ViewSpec,
        tokenizer: Tokenizer,
        wanted: Wanted,
        rank: int,
        world: int,
    ) -> None:
        self.examples, self.rows, self.order, self.view = examples, rows, order, view
        self.tokenizer, self.wanted, self.rank, self.world = tokenizer, wanted, rank, world

    def __getitem__(self, step: int) -> Batch:
        epochs, places = self.order.at(step, self.rank, self.world)
        rows, skipped = self.rows[places], list[str]()
        squares, numbers, pictures, examples = self._drawn(epochs, rows, skipped)
        count = DRAWS[self.view.augment]
        # A picture that two examples share in one batch is augmented once, as the first of them has it.
        first = np.array([int((pictures == number).any(1).argmax()) for number in range(len(numbers))])
        draws = torch.from_numpy(uniforms(self.order.seed, epochs[first], numbers, "augment", count)) if count else None
        return Batch(
            images=squares.permute(0, 3, 1, 2).contiguous(),
            draws=draws,
            pictures=torch.from_numpy(pictures),
            sample_index=torch.from_numpy(rows),
            captions=tuple(example.text for example in examples),
            skipped=tuple(skipped),
            place=Place(step, int(epochs[0])),
            **self._asked(examples),  # type: ignore[arg-type]
        )

    def _drawn(
        self, epochs: np.ndarray, rows: np.ndarray, skipped: list[str]
    ) -> tuple[Tensor, np.ndarray, np.ndarray, list[Example]]:
        """Squares (U, side, side, 3), their numbers (U,), which of them each row is about (B, P), and the examples.

        An example whose picture cannot be read is replaced by another, the same one in every replay, and recorded.
        """
        known: dict[int, Tensor] = {}
        examples = []
        for place, epoch in enumerate(epochs):
            for attempt in range(_ATTEMPTS):
                example = self.examples.example(int(rows[place]))
                try:
                    if not isinstance(self.examples.pictures, DrawsBatches):
                        self._read(example, known)
                    break
                except BadRow as error:
                    skipped.append(f"{example.where}: {error}")
                    share = uniforms(
                        self.order.seed, np.array([epoch]), rows[place : place + 1], f"replace-{attempt}", 1
                    )
                    rows[place] = self.rows[int(share[0, 0] * len(self.rows))]
            else:
                raise DataError(
                    f"the pictures of {_ATTEMPTS} examples in a row could not be read, the last: {skipped[-1]}; check the "
                    "images folder"
                )
            examples.append(example)
        numbers, pictures = np.unique([example.pictures for example in examples], return_inverse=True)
        if isinstance(self.examples.pictures, DrawsBatches):
            squares = torch.from_numpy(self.examples.pictures.squares(numbers, self.view.kept))
        else:
            squares = torch.stack([known[int(number)] for number in numbers])
        return squares, numbers, pictures.reshape(len(examples), -1), examples

    def _read(self, example: Example, known: dict[int, Tensor]) -> None:
        for number in example.pictures:
            if number not in known:
                square = draw(self.examples.pictures.image(number), self.view, self.view.kept)
                known[number] = torch.from_numpy(square.copy())

    def _asked(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Words and what is right, as the kind of example has it."""
        if self.wanted.texts is not None:
            chosen = [self.wanted.texts(each) for each in examples if isinstance(each, Chosen)]
            texts, right = [some for some, _ in chosen], [label for _, label in chosen]
            widest = max(map(len, texts))
            filled = [[*some, *[some[0]] * (widest - len(some))] for some in texts]
            words = self.tokenizer([text for some in filled for text in some])
            shape = (len(texts), widest, -1)
            real = torch.arange(widest) < torch.tensor([len(some) for some in texts])[:, None]
            mask = words.mask.view(shape) & real[:, :, None]
            return {"choices": words.ids.view(shape), "choices_mask": mask, "labels": torch.tensor(right)}
        words = self.tokenizer([example.text for example in examples])
        found = {"text": words.ids, "text_mask": words.mask}
        if self.wanted.targets is not None:
            answers = [each.answers for each in examples if isinstance(each, Asked)]
            found["targets"] = torch.stack([self.wanted.targets(some) for some in answers])
        labels = [each.label for each in examples if isinstance(each, Judged)]
        if labels:
            found["labels"] = torch.tensor(labels)
        pointed = [each for each in examples if isinstance(each, Pointed)]
        return found | (_regions(pointed) if pointed else {})


def _regions(examples: Sequence[Pointed]) -> dict[str, Tensor]:
    """Candidates (B, K, 4) with their mask, and (B, K) whether each overlaps what is meant by half or more."""
    widest = max(len(each.candidates) for each in examples)
    boxes, mask = torch.zeros(len(examples), widest, 4), torch.zeros(len(examples), widest, dtype=torch.bool)
    targets = torch.zeros(len(examples), widest)
    for row, each in enumerate(examples):
        count = len(each.candidates)
        if count:
            boxes[row, :count] = torch.tensor(each.candidates)
            mask[row, :count] = True
            targets[row, :count] = (overlaps(each.candidates, each.boxes).amax(1) >= 0.5).float()
    return {"boxes": boxes, "boxes_mask": mask, "targets": targets}


def overlaps(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Tensor:
    """Intersection over union of every box with every other: (K, M), boxes as left, top, right, bottom."""
    a, b = (torch.tensor(boxes, dtype=torch.float64).view(-1, 4) for boxes in (ours, theirs))
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    sizes = [(each[:, 2:] - each[:, :2]).clamp(min=0).prod(-1) for each in (a, b)]
    union = sizes[0][:, None] + sizes[1] - common
    return torch.where(union > 0, common / union.clamp(min=1e-12), 0.0)


def _first(batches: list[Batch]) -> Batch:
    return batches[0]


class ExampleLoader:
    """Training batches of one split of examples.

    Args:
        examples: those without an answer are left out.
        view: how the method wants its pictures.
        tokenizer: of the method.
        wanted: what the task makes of an example.
        batch: examples per step over all ranks; must divide by the number of ranks.
        seed: of the run.
        rank, world: this process and how many there are.
        workers: processes that decode.

    Raises:
        DataError: if no example can be learnt from, or the batch does not divide.
    """

    def __init__(
        self,
        examples: Examples[Example],
        view: ViewSpec,
        tokenizer: Tokenizer,
        wanted: Wanted,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        if batch < 1 or batch % world:
            raise DataError(f"batch {batch} does not divide by {world} ranks; choose a multiple of {world}")
        rows = usable(examples)
        self.order = Order(len(rows), batch, seed)
        self.workers = workers
        self._steps = _Steps(examples, rows, self.order, view, tokenizer, wanted, rank, world)

    def batch(self, step: int) -> Batch:
        """One batch, drawn here and now."""
        return self._steps[step]

    def epoch(self, step: int) -> float:
        """Passes over the examples that are complete before `step`."""
        return step * self.order.batch / self.order.rows

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps [start, stop), in order, read ahead by the workers."""
        loader = DataLoader(
            self._steps,
            batch_size=1,
            sampler=range(start, stop),
            collate_fn=_first,
            num_workers=self.workers,
            prefetch_factor=2 if self.workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(0),
        )
        return iter(loader)
