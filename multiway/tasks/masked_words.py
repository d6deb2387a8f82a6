"""Masked words: what a picture tells of a word that its caption hides.

Each word of interest is masked by itself, all its tokens at once, and guessed from the rest of the caption, with the picture
and without it (the protocol by which ViLT, Kim et al., 2021, arXiv 2102.03334, section 4.5, and others look into fusion).

- `with_picture/colour`: share of the colour words that are guessed right; a word of several tokens is right if all are.
- `without_picture/colour`: the same by the same model when its cross-attention is left out. That is not what a model scores
  that was *trained* blind: train the recipe `bert` for that figure.

Chance is the share of the most frequent word of the class among those that were masked: the best constant answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from multiway.abilities import abilities_of, require
from multiway.data.source import DataError, KnowsWords, Source
from multiway.tasks import statistics
from multiway.tasks.embed import encode_images
from multiway.tasks.task import Metric, Result, collect, require_rows
from multiway.tasks.words import spelled

__all__ = ["Guess", "MaskedWords"]

_ANY = "word"  # the class of all words, where the data know of no classes


@dataclass(frozen=True)
class Guess:
    """One word that was masked.

    Attributes:
        row: of the source; its caption is `caption`.
        word: what was masked, and its class.
        seen, blind: what was guessed with the picture and without; None where the model cannot.
    """

    row: int
    caption: str
    word: str
    kind: str
    seen: str | None
    blind: str | None


@dataclass(frozen=True)
class _Copy:
    """A caption with one of its words hidden: the row, the word and its class, and the word's tokens [start, stop)."""

    row: int
    number: int
    word: str
    kind: str
    start: int
    stop: int


@dataclass(frozen=True)
class MaskedWords:
    """Guesses hidden words with the picture and without.

    Attributes:
        rows: of the source that are asked about, spread evenly over it.
        batch: masked captions at a time.
        resamples, seed: of the bootstrap.
    """

    name: ClassVar[str] = "masked-words"
    needs: ClassVar[tuple[str, ...]] = ("fill_mask",)

    rows: int = 500
    batch: int = 256
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def run(self, model: Any, source: Source) -> Result:
        """Mask every word of interest in the first caption of each row, and count.

        Raises:
            LacksAbility: if the model guesses no words.
            DataError: if no word of the captions belongs to a class, or the tokeniser has no mask.
        """
        require(model, self.needs, self.name)
        require_rows(self.name, source)
        guesses = list(self._guesses(model, source))
        return collect(self, source, self.metrics(guesses), guesses)

    def metrics(self, guesses: list[Guess]) -> Iterator[Metric]:
        """Accuracy by class, then over all."""
        kinds = sorted({guess.kind for guess in guesses})
        for kind in [*kinds, *(["all"] if len(kinds) > 1 else [])]:
            own = [guess for guess in guesses if kind in ("all", guess.kind)]
            often = Counter((guess.kind, guess.word) for guess in own)
            best = {k: max(count for (of, _), count in often.items() if of == k) for k in {g.kind for g in own}}
            chance = sum(best.values()) / len(own)
            units = np.array([guess.row for guess in own])
            for name, said in (("with_picture", "seen"), ("without_picture", "blind")):
                if getattr(own[0], said) is None:
                    continue
                right = np.array([getattr(guess, said) == guess.word for guess in own], dtype=float)
                interval = statistics.mean(right, units, resamples=self.resamples, seed=self.seed)
                yield Metric(f"{name}/{kind}", *interval, n=len(own), chance=chance)

    def _guesses(self, model: Any, source: Source) -> Iterator[Guess]:
        tokenizer = model.processor.tokenizer
        if tokenizer is None or "mask" not in tokenizer.special:
            raise DataError(f"task `{self.name}` needs a tokeniser with a mask token, which this model's has not")
        count = min(self.rows, len(source))
        rows = [number * len(source) // count for number in range(count)]
        captions = [source.row(row).captions[0] for row in rows]
        tokens = model.processor.texts(captions)
        classes = {}
        if isinstance(source, KnowsWords):
            classes = {word: kind for kind, words in source.word_classes.items() for word in words}
        copies = list(self._copies(rows, tokens, tokenizer, classes))
        if not copies:
            raise DataError(f"no caption of {source.name}@{source.split} holds a word of a class that it names")
        images = encode_images(model, source, rows, tokens="only") if "encode_image" in abilities_of(model) else None
        for start in range(0, len(copies), self.batch):
            some = copies[start : start + self.batch]
            which = torch.tensor([copy.number for copy in some])
            ids, mask = tokens.ids[which].clone(), tokens.mask[which]
            at = torch.zeros_like(mask)
            for line, copy in enumerate(some):
                at[line, copy.start : copy.stop] = True
            ids[at] = tokenizer.special["mask"]
            seen = None if images is None else _words(model.fill_mask(images.rows(which), ids, mask, at), at, tokenizer)
            blind = _words(model.fill_mask(None, ids, mask, at), at, tokenizer)
            for line, copy in enumerate(some):
                caption = captions[copy.number]
                yield Guess(copy.row, caption, copy.word, copy.kind, seen[line] if seen else None, blind[line])

    def _copies(self, rows: list[int], tokens: Any, tokenizer: Any, classes: dict[str, str]) -> Iterator[_Copy]:
        """Every word of interest of every caption, as the tokens that spell it."""
        for number, row in enumerate(rows):
            text = tokens.ids[number], tokens.word_starts[number], tokens.mask[number]
            for word, start, stop in spelled(*text, tokenizer):
                kind = classes.get(word) if classes else (_ANY if word.isalnum() else None)
                if kind is not None:
                    yield _Copy(row, number, word, kind, start, stop)


def _words(logits: Tensor, at: Tensor, tokenizer: Any) -> list[str]:
    """The likeliest token at each masked place, joined to one word per row."""
    best = logits.argmax(-1).split(at.sum(1).tolist())
    return [tokenizer.decode(part.tolist()) for part in best]
