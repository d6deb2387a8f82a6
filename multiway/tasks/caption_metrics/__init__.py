"""Metrics of written captions without Java: BLEU, ROUGE-L, CIDEr-D, and the tokeniser they are defined with, a file for each."""

from __future__ import annotations

from collections.abc import Sequence

from multiway.tasks.caption_metrics.bleu import bleu
from multiway.tasks.caption_metrics.cider import DocumentFrequencies, cider_d, document_frequencies
from multiway.tasks.caption_metrics.corpus import Corpus
from multiway.tasks.caption_metrics.ngrams import check
from multiway.tasks.caption_metrics.ptb import tokenise
from multiway.tasks.caption_metrics.rouge import rouge_l

__all__ = [
    "Corpus",
    "DocumentFrequencies",
    "bleu",
    "cider_d",
    "document_frequencies",
    "measure",
    "rouge_l",
    "tokenise",
]


def measure(
    candidates: Sequence[str], references: Sequence[Sequence[str]], frequencies: DocumentFrequencies | None = None
) -> dict[str, Corpus]:
    """All of them, of captions as people and models write them.

    Args:
        candidates: N captions, one per picture.
        references: the known captions of each picture, at least one each.
        frequencies: for CIDEr-D; by default those of the references given here.

    Returns:
        By name: `BLEU-1`, ..., `BLEU-4`, `ROUGE-L`, `CIDEr-D`.

    Raises:
        ValueError, TypeError: naming the picture, for lists that do not fit together and for what is no text.
    """
    check(candidates, references)
    written = [tokenise(text) for text in candidates]
    known = [[tokenise(text) for text in texts] for texts in references]
    found = (*bleu(written, known), rouge_l(written, known), cider_d(written, known, frequencies))
    return {corpus.name: corpus for corpus in found}
