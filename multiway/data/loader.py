"""Batches as arithmetic: step -> positions -> rows (`order.py`) -> pixels (`pixels.py`) and words.

Every sample is seen exactly once per epoch whatever the batch size, a batch may straddle two epochs, and to resume at step s is to
ask for step s. Workers and ranks change nothing: a rank takes every W-th row of the same global batch.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multiway.batch import Batch, Place, ViewSpec
from multiway.data.augment import DRAWS
from multiway.data.curriculum import CurriculumOrder
from multiway.data.draws import uniforms
from multiway.data.masking import Masking, mask_words, ordinary_ids
from multiway.data.order import Order, Shuffle, passes_of
from multiway.data.patch_masking import PatchMasking, mask_patches
from multiway.data.pixels import FETCHED, PixelCache, Pixels
from multiway.data.shorten import Shortening
from multiway.data.source import BadRow, DataError, Source, stable_id
from multiway.data.tokenizer import Tokenizer, Tokens
from multiway.data.views import ViewsSpec, kept_side

__all__ = ["Loader", "Order", "PixelCache", "made_ahead", "read_ahead"]

T = TypeVar("T")

_ATTEMPTS = 20  # replacements tried for one unreadable row before giving up


class _Steps(Dataset[Batch]):
    """Step number -> Batch; what DataLoader's workers run."""

    def __init__(
        self,
        source: Source,
        order: Order | CurriculumOrder,
        view: ViewSpec,
        tokenizer: Tokenizer | None,
        masking: Masking,
        patches: PatchMasking,
        views: ViewsSpec | None,
        rank: int,
        world: int,
        reduce: bool,
        shortening: Shortening | None,
    ) -> None:
        self.source, self.order, self.view, self.tokenizer = source, order, view, tokenizer
        self.shortening = shortening
        self.views, self.rank, self.world = views, rank, world
        self.side = kept_side(view, views)
        self.pixels = Pixels(source, view, self.side, reduce)
        self.masking, self.patches = masking, patches
        self.ordinary = ordinary_ids(tokenizer) if tokenizer and masking.some else None

    def __getitem__(self, step: int) -> Batch:
        epochs, rows = self.order.at(step, self.rank, self.world)
        skipped: list[str] = []
        squares = self._squares(epochs, rows, skipped)
        captions, image_ids, labels = self._words(epochs, rows)
        if self.shortening is not None:
            tokens: Tokens | None = self.shortening(captions, self.order.seed, epochs, rows)
        else:
            tokens = self.tokenizer(captions) if self.tokenizer else None
        masked_text, masked = self._masked(tokens, epochs, rows)
        return Batch(
            images=squares.permute(0, 3, 1, 2).contiguous(),
            draws=self._draws(epochs, rows),
            text=tokens.ids if tokens else None,
            text_mask=tokens.mask if tokens else None,
            word_starts=tokens.word_starts if tokens else None,
            masked_text=masked_text,
            masked=masked,
            patch_mask=self._hidden(epochs, rows),
            labels=torch.tensor(labels),
            image_id=torch.tensor(image_ids),
            text_id=torch.tensor([stable_id(caption) for caption in captions]),
            sample_index=torch.from_numpy(rows),
            captions=tuple(captions),
            skipped=tuple(skipped),
            place=Place(step, int(epochs[0])),
        )

    def _squares(self, epochs: np.ndarray, rows: np.ndarray, skipped: list[str]) -> Tensor:
        """(B, side, side, 3) uint8 pictures; `rows` changes where an unreadable one was replaced."""
        squares = torch.empty(len(rows), self.side, self.side, 3, dtype=torch.uint8)
        drawn = self.pixels.drawn(rows)
        if drawn.any():
            squares[torch.from_numpy(drawn)] = self.pixels.draw(rows[drawn])
        for number, place in enumerate(others := np.flatnonzero(~drawn)):
            if number % FETCHED == 0:
                self.pixels.fetch(rows[others[number : number + FETCHED]])
            squares[place], rows[place] = self._readable(int(epochs[place]), int(rows[place]), skipped)
        return squares

    def _draws(self, epochs: np.ndarray, rows: np.ndarray) -> Tensor | None:
        """The numbers that decide how pictures are augmented: those of `images`, where there will be any, then each view's."""
        counts = {
            "augment": DRAWS[self.view.augment] if self.views is None or self.views.plain else 0,
            "views": self.views.draws if self.views else 0,
        }
        drawn = [uniforms(self.order.seed, epochs, rows, site, count) for site, count in counts.items() if count]
        return torch.from_numpy(np.concatenate(drawn, 1)) if drawn else None

    def _masked(
        self, tokens: Tokens | None, epochs: np.ndarray, rows: np.ndarray
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """The text with words masked, where the method learns from that."""
        if tokens is None or self.tokenizer is None or self.ordinary is None:
            return None, None
        # As many numbers as the context has places, whatever this batch's length: a row's words never depend on others.
        draws = uniforms(self.order.seed, epochs, rows, "mask", 3 * self.tokenizer.context)
        draws = draws.reshape(len(rows), 3, -1)[:, :, : tokens.ids.shape[1]]
        return mask_words(tokens, draws, self.masking, self.tokenizer.special["mask"], self.ordinary)

    def _hidden(self, epochs: np.ndarray, rows: np.ndarray) -> Tensor | None:
        """The patches masked, where the method learns from that."""
        if not self.patches.some:
            return None
        draws = uniforms(self.order.seed, epochs, rows, "patches", self.patches.draws(self.view.size))
        return mask_patches(draws, self.view.size, self.patches)

    def _words(self, epochs: np.ndarray, rows: np.ndarray) -> tuple[list[str], list[int], list[int]]:
        """The caption drawn for each row (one of its several), picture ids and labels."""
        choices = uniforms(self.order.seed, epochs, rows, "caption", 1)[:, 0]
        captions, image_ids, labels = [], [], []
        for row, choice in zip(rows, choices, strict=True):
            words = self.source.row(int(row))
            captions.append(words.captions[int(choice * len(words.captions))])
            image_ids.append(words.image_id)
            labels.append(words.label)
        return captions, image_ids, labels

    def _readable(self, epoch: int, row: int, skipped: list[str]) -> tuple[Tensor, int]:
        """The row's square; an unreadable row is replaced by another, the same one in every replay, and recorded."""
        for attempt in range(_ATTEMPTS):
            try:
                return self.pixels.get(row), row
            except BadRow as error:
                skipped.append(str(error))
                where = uniforms(self.order.seed, np.array([epoch]), np.array([row]), f"replace-{attempt}", 1)[0, 0]
                row = self.order.instead(row, float(where))
        raise DataError(
            f"{_ATTEMPTS} rows in a row could not be read, the last: {skipped[-1]}; run `multiway data check` on this data"
        )


def _deaf(worker: int) -> None:
    """Lets a worker pass over requests to stop, which reach every process of a group: they are the training process's to answer.

    Else Ctrl-C or a scheduler's SIGTERM ends the workers first, and the last step, which needs their batch, fails unsaved. A worker
    ends when it is told to through its queue, or when its parent is gone.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):  # Windows has but two of them
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _first(made: list[T]) -> T:
    return made[0]


def read_ahead(steps: Dataset[Batch], start: int, stop: int, workers: int) -> Iterator[Batch]:
    """Batches of steps [start, stop), in order, made by so many processes ahead of their use; 0 makes each when it is asked for."""
    return made_ahead(steps, range(start, stop), workers)


def made_ahead(items: Dataset[T], keys: Iterable[Any], workers: int) -> Iterator[T]:
    """`items[key]` for each key, in order, made by so many processes ahead of their use; 0 makes each when it is asked for.

    Keys are taken from their iterable a few ahead of what is being made, never all at once.
    """
    loader = DataLoader(
        items,
        batch_size=1,
        sampler=keys,
        collate_fn=_first,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_deaf,
        pin_memory=torch.cuda.is_available(),
        # A generator of its own, or DataLoader would draw its base seed from the global one.
        generator=torch.Generator().manual_seed(0),
    )
    return iter(loader)


class Loader:
    """Training batches of one source.

    Args:
        source: rows.
        view: how the method wants its pictures.
        tokenizer: None for methods that read no text.
        batch: rows per step over all ranks; must divide by the number of ranks.
        seed: of the run.
        rank, world: this process and how many there are.
        masking: which words are masked, for methods that guess them.
        patches: which patches are masked, likewise.
        views: the views that a method learns from; `augment.finish` makes them of the same squares and wants the same `views`.
        workers: processes that decode; 0 decodes in the training process, which is best for small cached pictures.
        shortening: what is read of a caption that is longer than the tokeniser's context; None for its beginning.
        shuffle: how the rows of an epoch are shuffled.
        reduce: as of `PixelCache`: quicker, with pixels that are a little different.
    """

    def __init__(
        self,
        source: Source,
        view: ViewSpec,
        tokenizer: Tokenizer | None,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        masking: Masking | None = None,
        patches: PatchMasking | None = None,
        views: ViewsSpec | None = None,
        shortening: Shortening | None = None,
        shuffle: Shuffle | None = None,
        reduce: bool = False,
    ) -> None:
        if len(source) == 0:
            raise DataError(f"{source.name}@{source.split} has no rows; nothing can be trained on it")
        if batch < 1 or batch % world:
            raise DataError(f"batch {batch} does not divide by {world} ranks; choose a multiple of {world}")
        passes = passes_of(source, seed, shuffle or Shuffle())
        self.order: Order | CurriculumOrder = Order(len(source), batch, seed, passes)
        self.view = view
        self.workers = workers
        hidden = (masking or Masking(), patches or PatchMasking())
        self._steps = _Steps(source, self.order, view, tokenizer, *hidden, views, rank, world, reduce, shortening)

    def reorder(self, order: CurriculumOrder) -> None:
        """Let another order of the same rows say what stands where."""
        self.order = self._steps.order = order

    def batch(self, step: int) -> Batch:
        """One batch, drawn here and now."""
        return self._steps[step]

    def epoch(self, step: int) -> float:
        """Passes over the data that are complete before `step`."""
        return self.order.epoch(step)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps [start, stop), in order, read ahead by the workers."""
        return read_ahead(self._steps, start, stop, self.workers)
