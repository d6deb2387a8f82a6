"""ROUGE-L of captions (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3), in the form of the COCO
caption evaluation (Chen et al. 2015, arXiv:1504.00325, section 3.3).

With l(c, r) the length of the longest common subsequence of a caption c and a reference r, in words:

    P = max over r of l(c, r) / |c|        R = max over r of l(c, r) / |r|        beta = 1.2
    ROUGE-L = (1 + beta^2) P R / (R + beta^2 P)

Precision and recall may come from different references. The value is the mean over pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multiway.tasks.caption_metrics.corpus import Corpus, mean_of
from multiway.tasks.caption_metrics.ngrams import check

__all__ = ["BETA", "common", "rouge_l"]

BETA = 1.2


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Corpus:
    """ROUGE-L, averaged over pictures.

    Args:
        candidates: N captions, tokenised: words parted by single spaces.
        references: the known captions of each picture, tokenised, at least one each.

    Raises:
        ValueError, TypeError: as `ngrams.check`.
    """
    check(candidates, references)
    scores = np.zeros(len(candidates))
    for number, (candidate, known) in enumerate(zip(candidates, references, strict=True)):
        # Parted at each space, as the original does: of no words at all that makes one empty word.
        words = candidate.split(" ")
        precision = recall = 0.0
        for text in known:
            other = text.split(" ")
            length = common(words, other)
            precision, recall = max(precision, length / len(words)), max(recall, length / len(other))
        if precision > 0:
            scores[number] = (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
    return mean_of("ROUGE-L", scores)


def common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence of two lists of words.

    A row of the usual table grows by 0 or 1 from cell to cell, so a row is a whole number whose bits say where it does not
    grow, and a row follows from the one before in one addition (Crochemore et al. 2001, "A fast and practical bit-vector
    algorithm for the longest common subsequence problem"; Hyyro 2004).
    """
    where: dict[str, int] = {}
    for place, word in enumerate(first):
        where[word] = where.get(word, 0) | 1 << place
    full = (1 << len(first)) - 1
    flat = full
    for word in second:
        matches = flat & where.get(word, 0)
        flat = (flat + matches | flat - matches) & full
    return len(first) - flat.bit_count()
