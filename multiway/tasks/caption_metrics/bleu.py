"""BLEU-1 to BLEU-4 of captions (Papineni, Roukos, Ward, Zhu 2002, "BLEU: a Method for Automatic Evaluation of Machine
Translation"), in the form of the COCO caption evaluation (Chen et al. 2015, arXiv:1504.00325, section 3.2).

Over all pictures together, with c the length of a picture's caption in words and r the length of its closest reference:

    p_n    = sum of n-grams found in the references / sum of n-grams written      (an n-gram counts at most as often as in
                                                                                  the reference that has most of it)
    BLEU-k = (p_1 ... p_k)^(1/k) * exp(min(0, 1 - sum r / sum c))

It is a figure of the corpus, not a mean over pictures. Nothing is smoothed, but 1e-15 and 1e-9 keep divisions from 0 / 0 just
as the original does, so that a set without a single 4-gram in common scores about 1e-4 instead of 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multiway.tasks.caption_metrics.corpus import Corpus, Floats
from multiway.tasks.caption_metrics.ngrams import Integers, check, count, counts_at, owners

__all__ = ["bleu"]

_TINY, _SMALL = 1e-15, 1e-9


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]], order: int = 4) -> tuple[Corpus, ...]:
    """BLEU-1, ..., BLEU-`order`.

    Args:
        candidates: N captions, tokenised: words parted by spaces.
        references: the known captions of each picture, tokenised, at least one each.

    Returns:
        One `Corpus` per order. `pictures` are scores of each picture as if it were the corpus, as the original reports them.

    Raises:
        ValueError, TypeError: as `ngrams.check`.
    """
    check(candidates, references)
    written = [text.split() for text in candidates]
    known = [text.split() for texts in references for text in texts]
    of = owners(references)
    pictures = len(candidates)
    own = np.array([len(text) for text in written], dtype=np.int64)
    lengths = np.array([len(text) for text in known], dtype=np.int64)
    columns = [own, _closest(own, lengths, of)]
    for grams in count(written + known, order):
        split = int(np.searchsorted(grams.text, pictures))
        # Greatest count over the references of one picture: sort by picture, gram and count; the last one of each run is it.
        key = of[grams.text[split:] - pictures] * grams.kinds + grams.gram[split:]
        by = np.lexsort((grams.count[split:], key))
        key, most = key[by], grams.count[split:][by]
        last = np.append(key[1:] != key[:-1], True)[: len(key)]
        picture, gram = np.divmod(key[last], max(grams.kinds, 1))
        found = np.minimum(counts_at(grams, picture, gram), most[last])
        columns += [np.bincount(picture, found, pictures), np.maximum(own - grams.order + 1, 0)]
    sums = np.stack(columns, axis=1).astype(np.float64)
    return tuple(
        Corpus(f"BLEU-{k}", float(_score(sums.sum(0, keepdims=True), k)[0]), _score(sums, k), sums, _Score(k))
        for k in range(1, order + 1)
    )


class _Score:
    """BLEU of one order as a function of the sums; a class, so that a `Corpus` compares and copies."""

    def __init__(self, order: int) -> None:
        self.order = order

    def __call__(self, sums: Floats) -> Floats:
        return _score(sums, self.order)


def _score(sums: Floats, order: int) -> Floats:
    """(R, 2 + 2 * orders) caption length, reference length, then found and written n-grams -> (R,) BLEU."""
    own, closest = sums[:, 0], sums[:, 1]
    found, written = sums[:, 2 : 2 + 2 * order : 2], sums[:, 3 : 3 + 2 * order : 2]
    precision = np.prod((found + _TINY) / (written + _SMALL), axis=1) ** (1.0 / order)
    ratio = (own + _TINY) / (closest + _SMALL)
    with np.errstate(over="ignore"):  # an empty caption: exp(-huge) = 0
        return precision * np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))


def _closest(own: Integers, lengths: Integers, of: Integers) -> Integers:
    """(N,) length of the reference closest to the caption's, the shorter of two equally close."""
    order = np.lexsort((lengths, np.abs(lengths - own[of]), of))
    first = np.searchsorted(of[order], np.arange(len(own)))
    return lengths[order][first]
