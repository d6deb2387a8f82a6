"""Masking words: which tokens a model has to guess, and what it sees in their place.

Devlin et al., BERT, 2019, arXiv 1810.04805, section 3.1 and appendix A: of the chosen tokens 80 % are shown as [MASK],
10 % as some other token, 10 % as they are. Whole words are chosen, as in ViLT (Kim et al., 2021, arXiv 2102.03334, section
3.3): a token whose neighbours give it away teaches nothing. Special tokens and padding are never chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multiway.data.source import DataError
from multiway.data.tokenizer import Tokenizer, Tokens

__all__ = ["Masking", "mask_words", "ordinary_ids"]


@dataclass(frozen=True)
class Masking:
    """How words are masked.

    Attributes:
        ratio: chance that a word is chosen; 0 masks nothing.
        whole_words: choose words; False chooses tokens, as BERT and ALBEF did.
        replaced: share of chosen tokens shown as [MASK].
        random: share of chosen tokens shown as a random token; what remains is shown as it is.
        least: words chosen at least in every text that has so many; short texts would else often have none.
        ratios: for methods that use the parts of a batch in different ways: the ratio of each of its equal parts, in order,
            instead of `ratio`.
    """

    ratio: float = 0.0
    whole_words: bool = True
    replaced: float = 0.8
    random: float = 0.1
    least: int = 0
    ratios: tuple[float, ...] = ()

    @property
    def some(self) -> bool:
        """Whether any word is masked at all."""
        return any(share > 0 for share in (self.ratios or (self.ratio,)))

    def __post_init__(self) -> None:
        shares = (self.ratio, self.replaced, self.random, *self.ratios)
        if not all(0.0 <= share <= 1.0 for share in shares) or self.replaced + self.random > 1.0 or self.least < 0:
            raise ValueError(
                f"masking needs shares from 0 to 1, replaced + random at most 1, and least >= 0; given {self}"
            )


def mask_words(
    tokens: Tokens, draws: np.ndarray, masking: Masking, mask_id: int, ordinary: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Choose words and hide them.

    Args:
        tokens: ids, mask and word starts, each (B, L).
        draws: (B, 3, L) in [0, 1): which words, what is shown, which random token. A function of (seed, epoch, sample).
        masking: shares.
        mask_id: id of [MASK].
        ordinary: (V',) ids that a random token may be: all but the special ones.

    Returns:
        (B, L) ids as the model sees them, and (B, L) bool, True at what it has to guess.
    """
    starts = tokens.word_starts.numpy()
    ids = tokens.ids.numpy()
    # Words are numbered from 1; tokens before the first start (the begin token) are 0. The end token and padding would
    # count to the last word, so the tokens that belong to no word are found by what they are.
    special = ~np.isin(ids, ordinary)
    real = tokens.mask.numpy() & ~special
    word = np.cumsum(starts | (real & (not masking.whole_words)), 1) * real
    column = np.arange(ids.shape[1])[None, :]
    first = np.where(real & (word != np.roll(word, 1, 1)), column, 0)
    first = np.maximum.accumulate(first, 1)  # each token's word begins here
    chance = np.where(real, np.take_along_axis(draws[:, 0], first, 1), 1.0)
    rows = len(ids)
    ratios = masking.ratios or (masking.ratio,)
    ratio = np.array([ratios[row * len(ratios) // rows] for row in range(rows)])[:, None]
    chosen = chance < ratio
    if masking.least and masking.some:
        # The words with the smallest numbers are chosen whatever the ratio.
        at_starts = np.where(real & (first == column), chance, 1.0)
        kept = min(masking.least, at_starts.shape[1])
        bound = np.partition(at_starts, kept - 1, 1)[:, kept - 1 : kept]
        chosen |= (chance <= bound) & real & (ratio > 0)
    shown = ids.copy()
    what = draws[:, 1]
    shown[chosen & (what < masking.replaced)] = mask_id
    random = chosen & (what >= masking.replaced) & (what < masking.replaced + masking.random)
    shown[random] = ordinary[(draws[:, 2][random] * len(ordinary)).astype(np.int64)]
    return torch.from_numpy(shown), torch.from_numpy(chosen)


def ordinary_ids(tokenizer: Tokenizer) -> np.ndarray:
    """(V',) ids of all tokens but the special ones.

    Raises:
        DataError: if the tokeniser has no mask token.
    """
    if "mask" not in tokenizer.special:
        raise DataError("this tokeniser has no mask token ([MASK] or <mask>), so no words can be masked with it")
    special = set(tokenizer.special.values())
    return np.array([token for token in range(len(tokenizer)) if token not in special], dtype=np.int64)
