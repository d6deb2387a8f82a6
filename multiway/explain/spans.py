"""Which characters of a text each word is, and which tokens: what maps over tokens are gathered into maps over words by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multiway.data.tokenizer import Tokenizer

__all__ = ["Word", "over_words", "word_mask", "words_of"]


@dataclass(frozen=True)
class Word:
    """One word, as the tokeniser parts them.

    Attributes:
        text: as it was written.
        start, stop: characters of the text, `text[start:stop]`.
        tokens: places of its tokens in the sequence that the model reads.
    """

    text: str
    start: int
    stop: int
    tokens: range


def words_of(tokenizer: Tokenizer, text: str) -> tuple[Word, ...]:
    """The words of a text that the model reads, in order; start, end and padding belong to none, and what is cut off is left out."""
    encoding = tokenizer.backend.encode(text)
    special = set(tokenizer.special.values())
    # The first special token after a word ends the text; anything behind it is padding.
    found: list[Word] = []
    owners = [
        None if number in special else owner for number, owner in zip(encoding.ids, encoding.word_ids, strict=True)
    ]
    place = 0
    while place < len(owners):
        if owners[place] is None:
            place += 1
            continue
        end = place
        while end < len(owners) and owners[end] == owners[place]:
            end += 1
        start, stop = encoding.offsets[place][0], encoding.offsets[end - 1][1]
        # Byte-level tokenisers count the space before a word as a part of it.
        while start < stop and text[start].isspace():
            start += 1
        if stop > start:
            found.append(Word(text[start:stop], start, stop, range(place, end)))
        place = end
    return tuple(found)


def word_mask(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Tensor:
    """(B, length) bool, True at tokens of words: neither start, end nor padding."""
    mask = torch.zeros(len(texts), length, dtype=torch.bool)
    for row, text in enumerate(texts):
        for word in words_of(tokenizer, text):
            mask[row, word.tokens.start : word.tokens.stop] = True
    return mask


def over_words(maps: Tensor, words: Sequence[Word]) -> Tensor:
    """(L, rows, columns) maps of tokens to (W, rows, columns): a word's is the mean over its tokens."""
    if not words:
        return maps.new_zeros(0, *maps.shape[1:])
    return torch.stack([maps[word.tokens.start : word.tokens.stop].mean(0) for word in words])
