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
from torch.utils.data import Dataset

from multiway.batch import Batch, Place, ViewSpec
from multiway.data.augment import DRAWS
from multiway.data.draws import uniforms
from multiway.data.examples import Asked, Box, Chosen, Example, Examples, Judged, KnowsAnswered, Pointed
from multiway.data.loader import read_ahead
from multiway.data.order import Order
from multiway.data.pixels import PixelCache
from multiway.data.regions import region_targets
from multiway.data.source import BadRow, DataError, DrawsBatches
from multiway.data.tokenizer import Tokenizer

__all__ = ["ExampleLoader", "Wanted", "usable"]

_ATTEMPTS = 20
_LOOKED_AT = 200  # examples of which the choices are compared before training


@dataclass(frozen=True)
class Wanted:
    """What a task makes of its examples.

    Attributes:
        targets: answers as people gave them -> (A,) how right each of the task's answers is; None where labels do.
        texts: a chosen example, and the epoch -> the texts to choose from, and which is right; None where there are no choices.
        regions: a pointed example -> the boxes to choose from; None for its own candidates.
    """

    targets: Callable[[Sequence[str]], Tensor] | None = None
    texts: Callable[[Chosen, int], tuple[Sequence[str], int]] | None = None
    regions: Callable[[Pointed], Sequence[Box]] | None = None


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
        # Pictures that are drawn are drawn faster than any cache, and there is no end of them.
        drawn = isinstance(examples.pictures, DrawsBatches)
        self.cache = PixelCache(0 if drawn else len(examples.pictures), view.kept)

    def __getitem__(self, step: int) -> Batch:
        epochs, places = self.order.at(step, self.rank, self.world)
        rows, skipped = self.rows[places], list[str]()
        examples, known = self._readable(epochs, rows, skipped)
        # A picture that several rows share is there once. Where a batch straddles two epochs it is there for each of them, so
        # that what becomes of it depends on nothing but picture and epoch, on however many ranks.
        numbers = np.array([example.pictures for example in examples], dtype=np.int64)
        keys, pictures = np.unique(epochs[:, None] * len(self.examples.pictures) + numbers, return_inverse=True)
        own_epochs, own = np.divmod(keys, len(self.examples.pictures))
        count = DRAWS[self.view.augment]
        return Batch(
            images=self._squares(own, known).permute(0, 3, 1, 2).contiguous(),
            draws=torch.from_numpy(uniforms(self.order.seed, own_epochs, own, "augment", count)) if count else None,
            pictures=torch.from_numpy(pictures.reshape(numbers.shape)),
            sample_index=torch.from_numpy(rows),
            captions=tuple(example.text for example in examples),
            skipped=tuple(skipped),
            place=Place(step, int(epochs[0])),
            **self._asked(examples, epochs),  # type: ignore[arg-type]
        )

    def _readable(
        self, epochs: np.ndarray, rows: np.ndarray, skipped: list[str]
    ) -> tuple[list[Example], dict[int, Tensor]]:
        """The examples of `rows`, and the squares of their pictures by number.

        An example whose picture cannot be read is replaced by another, the same one in every replay, and recorded; `rows`
        changes there.
        """
        known: dict[int, Tensor] = {}
        examples: list[Example] = []
        for place, epoch in enumerate(epochs):
            for attempt in range(_ATTEMPTS):
                example = self.examples.example(int(rows[place]))
                if examples and len(example.pictures) != len(examples[0].pictures):
                    raise DataError(
                        f"{example.where} is about {len(example.pictures)} pictures and {examples[0].where} about "
                        f"{len(examples[0].pictures)}; a task takes examples about equally many"
                    )
                try:
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
        return examples, known

    def _read(self, example: Example, known: dict[int, Tensor]) -> None:
        if isinstance(self.examples.pictures, DrawsBatches):
            return
        for number in example.pictures:
            if number not in known:
                known[number] = self.cache.get(self.examples.pictures, number, self.view)  # type: ignore[arg-type]

    def _squares(self, numbers: np.ndarray, known: dict[int, Tensor]) -> Tensor:
        """(U, side, side, 3) uint8."""
        if isinstance(self.examples.pictures, DrawsBatches):
            return torch.from_numpy(self.examples.pictures.squares(numbers, self.view.kept))
        return torch.stack([known[int(number)] for number in numbers])

    def _asked(self, examples: Sequence[Example], epochs: np.ndarray) -> dict[str, Tensor]:
        """Words and what is right, as the kind of example has it."""
        if self.wanted.texts is not None:
            ask = self.wanted.texts
            chosen = [ask(each, int(n)) for each, n in zip(examples, epochs, strict=True) if isinstance(each, Chosen)]
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
        regions = self.wanted.regions or (lambda each: each.candidates)
        return found | (region_targets(pointed, [regions(each) for each in pointed]) if pointed else {})


def _refuse_cut(
    examples: Examples[Example],
    rows: np.ndarray,
    tokenizer: Tokenizer,
    texts: Callable[[Chosen, int], tuple[Sequence[str], int]],
) -> None:
    """Refuse choices of which many are the same once they are cut to the context: nothing could be learnt from them."""
    same, asked = 0, 0
    for row in rows[:_LOOKED_AT]:
        example = examples.example(int(row))
        assert isinstance(example, Chosen)
        for epoch in (0, 1):
            some, _ = texts(example, epoch)
            words = tokenizer(list(some))
            different = len(set(some))
            same += (
                len({tuple(ids[mask].tolist()) for ids, mask in zip(words.ids, words.mask, strict=True)}) < different
            )
            asked += 1
    if same > asked // 10:
        raise DataError(
            f"{examples.name}@{examples.split}: of {same} in {asked} questions some choices are the same after "
            f"{tokenizer.context} tokens, where this run's texts are cut; tune a run that was trained with a longer context"
        )


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
        DataError: if no example can be learnt from, the batch does not divide, or the tokeniser's context cuts off what
            tells choices apart.
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
        if wanted.texts is not None:
            _refuse_cut(examples, rows, tokenizer, wanted.texts)
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
        return read_ahead(self._steps, start, stop, self.workers)
