"""CIDEr-D of captions (Vedantam, Zitnick, Parikh 2015, "CIDEr: Consensus-based Image Description Evaluation", CVPR,
arXiv:1411.5726, section 4), what the COCO caption evaluation prints as CIDEr.

With h_k(s) how often n-gram k occurs in a text s, N pictures, and d_k the number of pictures with k in any reference:

    g_k(s)        = h_k(s) * (ln N - ln max(1, d_k))
    CIDEr-D_n     = mean over references r of exp(-(l_c - l_r)^2 / (2 sigma^2)) * sum_k min(g_k(c), g_k(r)) g_k(r) / (|g(c)| |g(r)|)
    CIDEr-D       = 10 * mean over n = 1..4 of CIDEr-D_n,      sigma = 6

The value is the mean over pictures. Two details of the original code, kept: lengths l are numbers of *bigrams*, and an n-gram
that no reference has counts as one that a single picture has. With one picture every weight is ln 1 = 0 and so is the score:
document frequencies of a larger set must then be given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multiway.tasks.caption_metrics.corpus import Corpus, Floats, mean_of
from multiway.tasks.caption_metrics.ngrams import Integers, NGrams, check, count, counts_at, owners

__all__ = ["ORDERS", "SIGMA", "DocumentFrequencies", "cider_d", "document_frequencies"]

ORDERS = 4
SIGMA = 6.0


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many pictures each n-gram occurs, and of how many.

    Attributes:
        pictures: N.
        counts: pictures that have the n-gram in any of their references, by its words.
    """

    pictures: int
    counts: Mapping[tuple[str, ...], float]

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise ValueError(f"document frequencies of {self.pictures} pictures; expected at least one")
        most = max(self.counts.values(), default=0)
        if most > self.pictures:
            raise ValueError(
                f"an n-gram is said to occur in {most:g} of {self.pictures} pictures; check what was counted"
            )


def document_frequencies(references: Sequence[Sequence[str]]) -> DocumentFrequencies:
    """Count them over tokenised references: those of a training set, say, for captions of a few pictures."""
    texts = [text.split() for known in references for text in known]
    of = owners(references)
    counts: dict[tuple[str, ...], float] = {}
    for grams in count(texts, ORDERS):
        for gram, pictures in enumerate(_pictures_with(grams, of).tolist()):
            counts[grams.spelled[gram]] = pictures
    return DocumentFrequencies(len(references), counts)


def cider_d(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    frequencies: DocumentFrequencies | None = None,
    sigma: float = SIGMA,
) -> Corpus:
    """CIDEr-D, averaged over pictures; 1.0 is what tables print as 100.

    Args:
        candidates: N captions, tokenised: words parted by spaces.
        references: the known captions of each picture, tokenised, at least one each.
        frequencies: of n-grams; by default those of the references given here.
        sigma: of the penalty for another length, in bigrams.

    Raises:
        ValueError, TypeError: as `ngrams.check`.
    """
    check(candidates, references)
    pictures = len(candidates)
    texts = [text.split() for text in candidates] + [text.split() for known in references for text in known]
    of = owners(references)
    bigrams = np.array([max(len(text) - 1, 0) for text in texts], dtype=np.float64)
    penalty = np.exp(-((bigrams[of] - bigrams[pictures:]) ** 2) / (2 * sigma**2))
    scores = np.zeros(len(of))
    for grams in count(texts, ORDERS):
        weight = _weights(grams, of, pictures, frequencies)
        split = int(np.searchsorted(grams.text, pictures))
        norm = np.sqrt(np.bincount(grams.text, (grams.count * weight[grams.gram]) ** 2, len(texts)))
        reference, gram = grams.text[split:] - pictures, grams.gram[split:]
        ours = counts_at(grams, of[reference], gram)
        shared = np.minimum(ours, grams.count[split:]) * grams.count[split:] * weight[gram] ** 2
        product = norm[of] * norm[pictures:]
        scores += np.bincount(reference, shared, len(of)) / np.where(product > 0, product, 1.0)
    sizes = np.bincount(of, minlength=pictures)
    return mean_of("CIDEr-D", 10.0 * np.bincount(of, scores * penalty, pictures) / sizes / ORDERS)


def _weights(grams: NGrams, of: Integers, pictures: int, frequencies: DocumentFrequencies | None) -> Floats:
    """(G,) inverse document frequency of each n-gram; the first texts are the captions, one per picture."""
    if frequencies is None:
        split = int(np.searchsorted(grams.text, pictures))
        known = NGrams(
            grams.order, grams.text[split:] - pictures, grams.gram[split:], grams.count[split:], grams.spelled
        )
        seen = _pictures_with(known, of)
        return np.log(pictures) - np.log(np.maximum(seen, 1.0))
    given = np.array([frequencies.counts.get(grams.spelled[gram], 0.0) for gram in range(grams.kinds)])
    return np.log(frequencies.pictures) - np.log(np.maximum(given, 1.0))


def _pictures_with(grams: NGrams, of: Integers) -> Floats:
    """(G,) number of pictures that have each n-gram in any of their references."""
    pairs = np.unique(of[grams.text] * max(grams.kinds, 1) + grams.gram)
    return np.bincount(pairs % max(grams.kinds, 1), minlength=grams.kinds).astype(np.float64)
