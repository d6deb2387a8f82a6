"""A decoder that shares its blocks with an encoder, all or part of each.

Li et al., BLIP, 2022, arXiv 2201.12086, section 3.1 and table 3: reading looks both ways and writing looks back, so that what
suits one self-attention does not suit the other; the rest is common.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from multiway.nn.cache import Cache
from multiway.nn.heads import MaskedWordHead
from multiway.nn.text import TextConfig, TextEmbed, TextTransformer
from multiway.nn.transformer import Transformer, TransformerConfig

__all__ = ["SHARING", "SharedDecoder", "Sharing"]

Sharing = Literal["all-but-self-attention", "all-but-cross-attention", "all", "none"]

SHARING: dict[str, tuple[str, ...]] = {
    "all": (),
    "all-but-self-attention": ("attention", "attention_norm"),
    "all-but-cross-attention": ("cross", "cross_norm"),
}
"""Parts of each block that the decoder has for itself (table 3). `none` shares nothing, embeddings included."""


class SharedDecoder(nn.Module):
    """What writing has for itself: a self-attention in each block, or whatever else is not shared, and the word head.

    The text transformer that it shares the rest with is passed in at every call, so that every weight exists once.

    Args:
        config: of that text transformer.
        sharing: what is shared.
    """

    def __init__(self, config: TextConfig, sharing: Sharing = "all-but-self-attention") -> None:
        super().__init__()
        self.embed: TextEmbed | None = None
        self.blocks: Transformer | None = None
        self.own: nn.ModuleList | None = None
        if sharing == "none":
            self.embed, self.blocks = TextEmbed(config), Transformer(TransformerConfig.of(config))
        elif SHARING[sharing]:
            # New parts beside the shared ones: drawn as a whole transformer is, and the rest of it dropped.
            fresh = Transformer(TransformerConfig.of(config))
            names = SHARING[sharing]
            self.own = nn.ModuleList(
                nn.ModuleDict({name: getattr(block, name) for name in names}) for block in fresh.blocks
            )
        self.words = MaskedWordHead(config.width, config.vocabulary, config.epsilon)

    def forward(
        self,
        text: TextTransformer,
        ids: Tensor,
        image: Tensor | None,
        image_mask: Tensor | None = None,
        *,
        cache: Cache | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """(B, L) ids, beginning with [DEC], over the picture's (B, N, W) tokens -> (B, L, W), (B, 1, W) with `at`.

        Padding comes after a text's tokens, so that no token sees it.
        """
        embed = text.embed if self.embed is None else self.embed
        blocks = text.transformer if self.blocks is None else self.blocks
        embedded = embed(ids, past=0 if cache is None else cache.length)
        return blocks(  # type: ignore[no-any-return]
            embedded,
            None,
            image,
            image_mask,
            causal=True,
            cache=cache,
            instead=self.own,
            at=at,
        )

    def guess(self, text: TextTransformer, tokens: Tensor) -> Tensor:
        """(P, W) tokens -> (P, V) logits of the words that follow them; the matrix is the word embedding's."""
        embed = text.embed if self.embed is None else self.embed
        return self.words(tokens, embed.words.weight)  # type: ignore[no-any-return]
