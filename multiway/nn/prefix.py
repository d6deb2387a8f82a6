"""Texts cut into a prefix that is read and a rest that is written (prefix language modelling).

Raffel et al., T5, 2020, arXiv 1910.10683, section 3.2.1; of captions: Wang et al., SimVLM, 2022, arXiv 2108.10904, section 3.1.
Every word keeps the position that it has in its text, wherever it is read, and the decoder's start token stands in the place
of the prefix's last word.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multiway.nn.generate.decoding import Cached
from multiway.nn.text import TextEmbed
from multiway.nn.transformer import Transformer

__all__ = ["PrefixDecoding", "Split", "split"]


@dataclass(frozen=True)
class Split:
    """B texts, cut. Either side is as long as its longest, not as the text.

    Attributes:
        prefix, prefix_mask: (B, P) ids of the words that are given, and (B, P) bool.
        given: (B, R) what the decoder is fed: in the first column whatever stands before the rest, then the rest but its last.
        places: (B, R) their positions in the text.
        written: (B, R) bool, True where a token is to be guessed from this one.
        targets: (T,) the tokens that are to be guessed, row by row.
    """

    prefix: Tensor
    prefix_mask: Tensor
    given: Tensor
    places: Tensor
    written: Tensor
    targets: Tensor


def split(ids: Tensor, mask: Tensor, lengths: Tensor) -> Split:
    """Cut texts after so many words.

    Args:
        ids, mask: (B, L), a start token first, an end token last, padded on the right.
        lengths: (B,) words after the start token that are given.

    Raises:
        ValueError: if a text has nothing left to write.
    """
    rest = mask.sum(1) - 1 - lengths
    if len(rest) and int(rest.min()) < 1:
        raise ValueError(
            f"a prefix of {int(lengths[rest.argmin()])} words leaves nothing to write of a text of {int(mask[rest.argmin()].sum())} "
            "tokens; give at most two fewer than it has"
        )
    longest, most = int(lengths.max()) if len(lengths) else 0, int(rest.max()) if len(rest) else 0
    prefix_mask = torch.arange(longest, device=ids.device) < lengths[:, None]
    written = torch.arange(most, device=ids.device) < rest[:, None]
    # Past the end of a text any place will do: nothing there is guessed, and nothing that is guessed sees it.
    places = (lengths[:, None] + torch.arange(most, device=ids.device)).clamp(max=ids.shape[1] - 1)
    after = (places + 1).clamp(max=ids.shape[1] - 1)
    return Split(
        ids[:, 1 : 1 + longest], prefix_mask, ids.gather(1, places), places, written, ids.gather(1, after)[written]
    )


class PrefixDecoding(Cached):
    """Texts about to be written after prefixes of different lengths, which an encoder has read.

    A text whose prefix is longer than another's waits: what is put in its place until then is not seen.

    Args:
        embed: of words.
        decoder: causal blocks with attention to the memory.
        memory, memory_mask: (P, M, W) the prefixes, read, and (P, M) bool; None for prefixes of nothing.
        start: id of the start token, which takes the place of a prefix's last word.
        lengths: (P,) words of each prefix.
        first: position of the first token that any text is written from: the shortest of the lengths.
    """

    def __init__(
        self,
        embed: TextEmbed,
        decoder: Transformer,
        memory: Tensor | None,
        memory_mask: Tensor | None,
        start: int,
        lengths: Tensor,
        first: int,
    ) -> None:
        super().__init__(lambda ids, cache: self._next(ids), decoder.config.layers, lengths.shape[0], lengths.device)
        self.embed, self.decoder, self.start, self.lengths = embed, decoder, start, lengths
        self.read, self.read_mask, self.first = memory, memory_mask, first

    def _next(self, ids: Tensor) -> Tensor:
        """(R, n) further tokens -> (R, V) logits of the next: of the prompt at the first call its last token alone."""
        past = self.cache.length
        ids, place = ids[:, -1:], self.first + past
        ids = torch.where(self.lengths[:, None] == place, self.start, ids)
        mask = torch.arange(self.first, place + 1, device=ids.device) >= self.lengths[:, None]
        seen = (None, None) if self.cache.seen else (self.read, self.read_mask)
        last = self.decoder(self.embed(ids, past=place), mask, *seen, cache=self.cache)
        return last[:, 0] @ self.embed.words.weight.T

    def select(self, rows: Tensor) -> None:
        """See `Decoding`."""
        self.lengths = self.lengths[rows]
        super().select(rows)
