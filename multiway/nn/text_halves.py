"""The lower half of CoCa's text decoder: words read causally, and a [CLS] token that sums them up.

Yu et al., CoCa, 2022, arXiv 2205.01917, section 3.2: unimodal text layers have causal attention and none to the picture; a
learned [CLS] is appended, and its output is the text. Nobody sees it: the words come before it. So the words' outputs are those
of a decoder without it, and one pass serves a contrastive loss and a captioning one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.nn.cache import Cache
from multiway.nn.text import TextConfig, TextEmbed
from multiway.nn.transformer import Transformer, TransformerConfig

__all__ = ["ClassMask", "ReadingHalf"]

ClassMask = Literal["exact", "legacy"]


class ReadingHalf(nn.Module):
    """Causal blocks over words and a class token.

    The class token has a position of its own, one past the context: what it gives does not depend on how far a batch is padded.

    Args:
        config: of the blocks; there is no norm after them, but one on the class token.
        class_token: `last`, after all words, or `first`, before them: under a causal mask it then sees itself alone, and all
            texts are the same point (the words see it, a constant).
        class_mask: which words a last [CLS] sees. `exact`: the real ones and itself. `legacy`: as `open_clip` built the mask when
            its CoCas were trained, one place late: the first padding token, of id `pad`, is seen as well, and [CLS] sees itself
            only where a text fills the context.
        pad: that id.

    Raises:
        ValueError: for `legacy` with [CLS] first, which nobody has trained.
    """

    def __init__(
        self,
        config: TextConfig,
        class_token: Literal["last", "first"] = "last",
        class_mask: ClassMask = "exact",
        pad: int = 0,
    ) -> None:
        super().__init__()
        if class_mask == "legacy" and class_token == "first":
            raise ValueError("class_mask='legacy' belongs to a last class token; set class_mask='exact'")
        self.class_first, self.legacy, self.pad = class_token == "first", class_mask == "legacy", pad
        self.context, self.layers = config.context, config.layers
        self.embed = TextEmbed(config)
        self.class_token = nn.Parameter(torch.empty(config.width))
        self.class_position = nn.Parameter(torch.empty(config.width))
        for parameter in (self.class_token, self.class_position):
            nn.init.trunc_normal_(parameter, std=0.02)
        blocks = replace(TransformerConfig.of(config), causal=True, cross_width=None, final_norm=False)
        self.transformer = Transformer(blocks)
        self.class_norm = nn.LayerNorm(config.width, config.epsilon)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read.

        Args:
            ids: (B, L), padded on the right.
            mask: (B, L) bool, True at real tokens, each row's first.

        Returns:
            (B, W) the class token, normed, and (B, L, W) the words, not normed: blocks follow.
        """
        length = ids.shape[1]
        if self.legacy:
            ids = ids.masked_fill(~mask, self.pad)
            if length < self.context:
                ids, mask = F.pad(ids, (0, 1), value=self.pad), F.pad(mask, (0, 1))
        words, always = self.embed(ids), torch.ones_like(mask[:, :1])
        late = self.class_first or self.legacy
        keys = torch.cat([always, mask] if late else [mask, always], 1)
        one = self._class(ids.shape[0]).to(words.dtype)
        if self.class_first:
            read = self.transformer(torch.cat([one, words], 1), keys)
            return self.class_norm(read[:, 0]), read[:, 1:]
        read = self.transformer(torch.cat([words, one], 1), keys)
        return self.class_norm(read[:, -1]), read[:, :length]

    def read_on(self, ids: Tensor, cache: Cache) -> Tensor:
        """(R, n) further words of texts that are being written -> (R, n, W); the class token has no part in it."""
        past = cache.length
        if not self.class_first:
            return self.transformer(self.embed(ids, past=past), cache=cache)  # type: ignore[no-any-return]
        if past:
            return self.transformer(self.embed(ids, past=past - 1), cache=cache)  # type: ignore[no-any-return]
        words = self.embed(ids)
        one = self._class(ids.shape[0]).to(words.dtype)
        return self.transformer(torch.cat([one, words], 1), cache=cache)[:, 1:]  # type: ignore[no-any-return]

    def _class(self, rows: int) -> Tensor:
        """(rows, 1, W)."""
        return (self.class_token + self.class_position).expand(rows, 1, -1)
