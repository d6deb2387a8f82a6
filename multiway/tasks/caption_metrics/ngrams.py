"""n-grams of many texts at once, as counts in arrays: what BLEU and CIDEr-D are both made of.

Words become numbers, an n-gram becomes the number of its first n - 1 words joined with its last word, and counting is sorting.
So the cost is a few sorts of arrays, not a dictionary per text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Integers", "NGrams", "check", "count", "counts_at", "owners"]

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class NGrams:
    """The n-grams of one order in a list of texts, sorted by text and then by gram.

    Attributes:
        order: n, the number of words.
        text: (K,) text that the n-gram occurs in.
        gram: (K,) number of the n-gram, the same in every text.
        count: (K,) how often it occurs there.
        spelled: the n-grams by number, as words.
    """

    order: int
    text: Integers
    gram: Integers
    count: Integers
    spelled: Spelled

    @property
    def kinds(self) -> int:
        """Number of different n-grams."""
        return len(self.spelled)


@dataclass(frozen=True)
class Spelled:
    """n-grams as words, spelled out only when asked for.

    Attributes:
        words: every text's words, one after another.
        first: (G,) where the n-gram occurs first in `words`.
        order: n.
    """

    words: Sequence[str]
    first: Integers
    order: int

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, gram: int) -> tuple[str, ...]:
        start = int(self.first[gram])
        return tuple(self.words[start : start + self.order])


def check(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse what cannot be measured.

    Raises:
        ValueError: naming the picture, if the two differ in length, are empty, or a picture has no reference.
        TypeError: if a picture's references are one string, or something is no string.
    """
    if len(candidates) != len(references) or not len(candidates):
        raise ValueError(
            f"given {len(candidates)} captions and references of {len(references)} pictures; expected one caption for each "
            f"picture, and at least one"
        )
    for number, (candidate, known) in enumerate(zip(candidates, references, strict=True)):
        if isinstance(known, str):
            raise TypeError(f"picture {number} has the references {known!r}, one string; expected a list of captions")
        for text in (candidate, *known):
            if not isinstance(text, str):
                raise TypeError(
                    f"picture {number} has the caption {text!r} of type {type(text).__name__}; expected text"
                )
        if not known:
            raise ValueError(f"picture {number} has no reference captions; leave it out, or give it at least one")


def owners(references: Sequence[Sequence[str]]) -> Integers:
    """(R,) picture of each reference, the references of all pictures taken one after another."""
    return np.repeat(np.arange(len(references)), [len(known) for known in references])


def count(texts: Sequence[Sequence[str]], order: int) -> tuple[NGrams, ...]:
    """Count the n-grams of n = 1, ..., `order`.

    Args:
        texts: words of each text.

    Returns:
        One `NGrams` per n. Grams of different orders are numbered apart.
    """
    words = [word for text in texts for word in text]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    vocabulary: dict[str, int] = {}
    word = np.fromiter((vocabulary.setdefault(each, len(vocabulary)) for each in words), np.int64, len(words))
    text = np.repeat(np.arange(len(texts)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))  # words from here to the end of the text
    grams: list[NGrams] = []
    at = np.arange(len(words))  # where n-grams begin
    code = word
    for n in range(1, order + 1):
        if n > 1:
            keep = left[at] >= n
            at, code = at[keep], code[keep]
            code = code * len(vocabulary) + word[at + n - 1]
        kinds, first, code = np.unique(code, return_index=True, return_inverse=True)
        pair, times = np.unique(text[at] * max(len(kinds), 1) + code, return_counts=True)
        of, gram = np.divmod(pair, max(len(kinds), 1))
        grams.append(NGrams(n, of, gram, times, Spelled(words, at[first], n)))
    return tuple(grams)


def counts_at(grams: NGrams, text: Integers, gram: Integers) -> Integers:
    """(Q,) how often `gram[q]` occurs in `text[q]`; 0 where it does not."""
    if not len(grams.text):
        return np.zeros(len(text), dtype=np.int64)
    keys = grams.text * grams.kinds + grams.gram
    asked = text * grams.kinds + gram
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, grams.count[place], 0)
