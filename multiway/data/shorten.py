"""What is read of a caption that is longer than the context: its beginning, some of its tokens, or a stretch of it.

X. Li, Z. Wang and C. Xie, An Inverse Scaling Law for CLIP Training (CLIPA), 2023, arXiv 2305.07017, section 3: captions are cut to
few tokens by truncation, by keeping tokens at random, or by keeping a block of neighbours, so that over the epochs all of a
caption is read. Start and end token stay. The paper's fourth way, which prefers nouns, needs a tagger of words and is not here.

Which tokens are kept is a function of (seed, epoch, sample), like everything else that is drawn. What is short enough stays whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from multiway.data.draws import uniforms
from multiway.data.tokenizer import CONTEXT_CEILING, Tokenizer, Tokens

__all__ = ["Shorten", "Shortening", "shorten"]

Shorten = Literal["first", "random", "block"]


class Shortening:
    """Texts to tokens, of which no more than a tokeniser's context are kept, chosen by the draws of each row.

    Args:
        tokenizer: with the context that is wanted.
        how: `random` or `block`; the beginning is what the tokeniser itself gives.
    """

    def __init__(self, tokenizer: Tokenizer, how: Shorten) -> None:
        self.context, self.how = tokenizer.context, how
        self.whole = tokenizer.of_context(CONTEXT_CEILING)

    def __call__(self, texts: Sequence[str], seed: int, epochs: np.ndarray, rows: np.ndarray) -> Tokens:
        """Token ids of `texts`, at most the context of each.

        Args:
            texts: B strings.
            seed: of the run.
            epochs, rows: (B,) where each text is read.
        """
        tokens = self.whole(texts)
        # One number for where a block begins, one for each place; those of a place are the same whatever the batch's length.
        draws = uniforms(seed, epochs, rows, "shorten", 1 + tokens.ids.shape[1])
        return shorten(tokens, draws, self.context, self.how, self.whole)


def shorten(tokens: Tokens, draws: np.ndarray, context: int, how: Shorten, tokenizer: Tokenizer) -> Tokens:
    """Keep `context` tokens of each text that has more, in their order.

    Args:
        tokens: (B, L).
        draws: (B, 1 + L) in [0, 1).
        context: tokens that are left, special ones included, which all stay.
        how: which of the others are left: the `first`, some at `random`, or a `block` of neighbours.
        tokenizer: knows the special ones, and how to fill up.

    Returns:
        (B, L'), L' being the longest that is left. A token that lost the beginning of its word begins one.
    """
    ids, real = tokens.ids.numpy(), tokens.mask.numpy()
    special = np.isin(ids, list(tokenizer.special.values())) & real
    plain = real & ~special
    count = plain.sum(1)
    room = np.minimum(count, context - special.sum(1))[:, None]
    place = np.cumsum(plain, 1) - 1  # among the plain tokens
    if how == "random":
        first = np.where(plain, draws[:, 1:], np.inf)
        rank = first.argsort(1, kind="stable").argsort(1, kind="stable")
    else:
        start = (draws[:, :1] * (count[:, None] - room + 1)).astype(np.int64) if how == "block" else 0
        rank = place - start
    kept = special | (plain & (rank >= 0) & (rank < room))
    order = np.argsort(~kept, 1, kind="stable")[:, : max(1, int(kept.sum(1).max(initial=0)))]

    def take(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, order, 1)

    mask = take(kept)
    word = take(np.cumsum(tokens.word_starts.numpy(), 1) * plain)
    before = np.concatenate([np.zeros_like(word[:, :1]), word[:, :-1]], 1)
    return Tokens(
        torch.from_numpy(np.where(mask, take(ids), tokenizer.pad)),
        torch.from_numpy(mask),
        torch.from_numpy(mask & (word > 0) & (word != before)),
    )
