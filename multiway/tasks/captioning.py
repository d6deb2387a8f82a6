"""Captioning by likelihood: how well a model tells a held-out caption, and what the picture has to do with it.

The true caption of each picture is read out to the decoder token by token (teacher forcing), once beside its own picture and
once beside another one.

- `with_picture/nats`: minus the log-probability of a token, averaged over all tokens but the first of each caption, the end
  token included. Its exponential is the perplexity; divided by ln 2 it is in bits.
- `other_picture/nats`: the same beside another picture of the split. `gain/nats` is the difference on the same tokens: what
  the picture tells. It is not what a model loses that was *trained* blind: such a model guesses, one that is shown the wrong
  picture is sure of the wrong thing.
- `without_picture/nats`: of a model that sees no pictures, the one figure there is. This, of a model trained on the same
  captions, is what to compare `with_picture/nats` with.
- `with_picture/colour`, `other_picture/colour`, ...: share of the words of a class that are right, where the data know of
  classes; a word is right if each of its tokens is the likeliest after those before it.

Chance: of the nats the entropy of the tokens themselves, which is what the best constant prediction scores; of a class of
words the share of its most frequent one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from multiway.abilities import CaptionScores, abilities_of, require
from multiway.data.source import DataError, KnowsWords, Source
from multiway.losses.chance import unigram
from multiway.tasks import statistics
from multiway.tasks.embed import encode_images
from multiway.tasks.task import Metric, Result, collect, require_rows
from multiway.tasks.words import spelled

__all__ = ["Captioning", "Told"]


@dataclass(frozen=True)
class Told:
    """One caption and what was made of it.

    Attributes:
        row: of the source.
        caption: the true one.
        seen, other: nats of each of its tokens, beside its picture and beside another one; the same of a model that sees none.
        tokens: their ids.
        words: (word, class, right beside its picture, right beside another) for each word of a class.
        blind: whether the model sees no pictures.
    """

    row: int
    caption: str
    seen: tuple[float, ...]
    other: tuple[float, ...]
    tokens: tuple[int, ...]
    words: tuple[tuple[str, str, bool, bool], ...]
    blind: bool = False


@dataclass(frozen=True)
class Captioning:
    """Likelihood of held-out captions, with their pictures and with others.

    Attributes:
        rows: of the source that are read out, spread evenly over it.
        resamples, seed: of the bootstrap over pictures.
    """

    name: ClassVar[str] = "captioning"
    needs: ClassVar[tuple[str, ...]] = ("caption_likelihood",)

    rows: int = 500
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def run(self, model: Any, source: Source) -> Result:
        """Read out the first caption of each row.

        Raises:
            LacksAbility: if the model writes no captions.
            DataError: if there are fewer than two rows, so that no picture is another one's.
        """
        require(model, self.needs, self.name)
        require_rows(self.name, source)
        told = self._read_out(model, source)
        return collect(self, source, self.metrics(told), told)

    def metrics(self, told: list[Told]) -> Iterator[Metric]:
        """Nats per token, then words by class."""
        seen, other = (np.concatenate([getattr(each, name) for each in told]) for name in ("seen", "other"))
        units = np.repeat([each.row for each in told], [len(each.seen) for each in told])
        counts = torch.bincount(torch.tensor([token for each in told for token in each.tokens]))
        chance, blind = unigram(counts).value, told[0].blind
        lines = [("without_picture/nats", seen, chance)]
        if not blind:
            lines = [
                ("with_picture/nats", seen, chance),
                ("other_picture/nats", other, chance),
                ("gain/nats", other - seen, 0.0),
            ]
        for name, values, by_chance in lines:
            yield Metric(name, *self._mean(values, units), n=len(values), chance=by_chance)
        words = [(each.row, *word) for each in told for word in each.words]
        for kind in sorted({kind for _, _, kind, _, _ in words}):
            own = [word for word in words if word[2] == kind]
            often = Counter(word for _, word, *_ in own).most_common(1)[0][1] / len(own)
            rows = np.array([word[0] for word in own])
            for name, place in [("without_picture", 3)] if blind else [("with_picture", 3), ("other_picture", 4)]:
                right = np.array([word[place] for word in own], dtype=float)
                yield Metric(f"{name}/{kind}", *self._mean(right, rows), n=len(own), chance=often)

    def _mean(self, values: np.ndarray, units: np.ndarray) -> statistics.Interval:
        return statistics.mean(values, units, resamples=self.resamples, seed=self.seed)

    def _read_out(self, model: Any, source: Source) -> list[Told]:
        tokenizer = model.processor.tokenizer
        count = min(self.rows, len(source))
        if tokenizer is None or count < 2:
            raise DataError(
                f"task `{self.name}` needs a tokeniser and two rows; the model has {'no' if tokenizer is None else 'a'} tokeniser, "
                f"{source.name}@{source.split} has {len(source)} rows"
            )
        rows = [number * len(source) // count for number in range(count)]
        captions = [source.row(row).captions[0] for row in rows]
        words = model.processor.texts(captions)
        sees = "encode_image" in abilities_of(model)
        images = encode_images(model, source, rows, tokens=True) if sees else None
        seen = other = model.caption_likelihood(images, words.ids, words.mask)
        if images is not None:
            # Half a turn: neighbours of a source may be of one kind.
            turned = (torch.arange(count) + count // 2) % count
            other = model.caption_likelihood(images.rows(turned), words.ids, words.mask)
        classes: dict[str, str] = {}
        if isinstance(source, KnowsWords):
            classes = {word: kind for kind, group in source.word_classes.items() for word in group}
        told = []
        for line, (row, caption) in enumerate(zip(rows, captions, strict=True)):
            length = int(words.mask[line].sum())
            spoken = slice(1, length)
            told.append(
                Told(
                    row,
                    caption,
                    tuple((-seen.logp[line, spoken]).tolist()),
                    tuple((-other.logp[line, spoken]).tolist()),
                    tuple(words.ids[line, spoken].tolist()),
                    tuple(self._words(line, length, words, tokenizer, classes, seen, other)),
                    not sees,
                )
            )
        return told

    def _words(
        self,
        line: int,
        length: int,
        words: Any,
        tokenizer: Any,
        classes: dict[str, str],
        seen: CaptionScores,
        other: CaptionScores,
    ) -> Iterator[tuple[str, str, bool, bool]]:
        """The words of a class in one caption, and whether each was right."""
        ids = words.ids[line, :length]
        for word, start, stop in spelled(ids, words.word_starts[line, :length], words.mask[line, :length], tokenizer):
            if start > 0 and word in classes:  # the first token is given, not guessed
                right = [bool((scores.best[line, start:stop] == ids[start:stop]).all()) for scores in (seen, other)]
                yield word, classes[word], right[0], right[1]
