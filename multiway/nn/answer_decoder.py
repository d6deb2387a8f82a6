"""A small decoder that writes over the tokens of a question which has been read with its picture.

Li et al., ALBEF, 2021, arXiv 2107.07651 (VQA): causal blocks with attention to those tokens, begun from the blocks that read the
question with the picture. Here they begin from whatever blocks of the trained method attend to a memory, tensor by tensor, where
shapes fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.nn.cache import Cache
from multiway.nn.generate.decoding import Cached
from multiway.nn.text import TextConfig, TextEmbed
from multiway.nn.transformer import Transformer, TransformerConfig

__all__ = ["AnswerDecoder"]


class AnswerDecoder(nn.Module):
    """Word embeddings, causal blocks over a memory, and the embeddings again for the words that follow.

    Args:
        under: the method that reads; its blocks are the example for the decoder's where they are as wide.
        width: W of the memory's tokens.
        layers: number of blocks.
        vocabulary: V.
        longest: greatest number of tokens of a text.
    """

    def __init__(self, under: nn.Module, width: int, layers: int, vocabulary: int, longest: int) -> None:
        super().__init__()
        self.embed = TextEmbed(TextConfig(vocabulary=vocabulary, context=longest, width=width))
        source = _crossing(under)
        blocks = TransformerConfig(width, heads=max(1, width // 64))
        if source is not None and source.width == width:
            blocks = source.config
        self.blocks = Transformer(
            replace(blocks, layers=layers, causal=True, cross_width=width, cross_layers=None, checkpoint=False)
        )

    def forward(self, ids: Tensor, memory: Tensor, mask: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """(R, L) ids, each over the memory `rows[r]` of (B, M, W), real where (B, M) `mask` is -> (R, L, V) logits of what follows."""
        tokens = self.blocks(self.embed(ids), None, memory, mask, memory_rows=rows)
        return F.linear(tokens, self.embed.words.weight)

    def decoding(self, memory: Tensor, mask: Tensor | None = None) -> Cached:
        """Texts about to be written, one over each memory."""

        def next_logits(ids: Tensor, cache: Cache) -> Tensor:
            seen = (None, None) if cache.seen else (memory, mask)
            tokens = self.blocks(self.embed(ids, past=cache.length), None, *seen, cache=cache)
            return F.linear(tokens[:, -1], self.embed.words.weight)

        return Cached(next_logits, len(self.blocks.blocks), memory.shape[0], memory.device)

    @torch.no_grad()
    def begin_from(self, trained: nn.Module) -> int:
        """Start from a trained method's blocks that attend to a memory, and from its words.

        Returns:
            How many tensors were taken; the others, of which it has none or others of another shape, stay as they were drawn.
        """
        source = _crossing(trained)
        offered = {} if source is None else {f"blocks.{name}": each for name, each in source.state_dict().items()}
        words = next((part.words.weight for part in trained.modules() if isinstance(part, TextEmbed)), None)
        if words is not None:
            # A method may have ids of its own after those of the tokeniser.
            offered["embed.words.weight"] = words[: self.embed.words.num_embeddings]
        taken = 0
        for name, mine in self.state_dict().items():
            if name in offered and offered[name].shape == mine.shape:
                mine.copy_(offered[name])
                taken += 1
        return taken


def _crossing(method: nn.Module) -> Transformer | None:
    """The transformer that attends to a memory, a decoder before others, no momentum twin; None where there is none."""

    def found() -> Iterator[tuple[bool, Transformer]]:
        for name, part in method.named_modules():
            if isinstance(part, Transformer) and part.config.cross_width and not name.startswith("twin"):
                yield "decoder" not in name, part

    return min(found(), key=lambda each: each[0], default=(True, None))[1]
