"""Co-attention: two streams side by side, each attending to the other in every layer.

Dou et al., METER, 2022, arXiv 2111.02387, section 3.1 (co-attention fusion), after the co-attentional transformers of Lu et
al., ViLBERT, 2019, arXiv 1908.02265, section 2.1, and Tan and Bansal, LXMERT, 2019, arXiv 1908.07490, section 2.2. With x the
words and y the patches that leave layer l - 1,

    x' = FFN( Cross( Self(x), y ) ),     y' = FFN( Cross( Self(y), x ) )

Both read what the other was before the layer, so that their order does not matter.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multiway.nn.attention import ALL_VISIBLE, Visibility
from multiway.nn.transformer import Transformer, TransformerConfig

__all__ = ["CoAttention"]


class CoAttention(nn.Module):
    """Two stacks of blocks in lockstep, each the other's memory.

    Args:
        config: of either stack; both have its width, and `cross_width` is set to it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        config = replace(config, cross_width=config.width, cross_layers=None, causal=False)
        self.config = config
        self.text = Transformer(config)
        self.image = Transformer(config)

    def forward(
        self,
        text: Tensor,
        image: Tensor | None,
        text_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
        *,
        wanted: Literal["both", "text", "class"] = "both",
        record: MutableMapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Run all layers.

        Args:
            text: (B, L, W).
            image: (B, N, W); None leaves the crossing out, and the text's stack is a plain encoder.
            text_mask, image_mask: (B, L) and (B, N) bool, True at real tokens; None when all are.
            wanted: `both` streams; the `text` alone, which saves the picture's last block; or the first token of each
                (`class`), which saves most of the last layer. What is computed is the same.
            record: receives attention maps by path: `text.blocks.3.cross` is of words over patches. Forces the written-out
                form of attention.

        Returns:
            The text's tokens (B, L, W) or (B, 1, W), and the picture's (B, N, W) or (B, 1, W); None where not wanted.
        """
        seen = Visibility.of(text_mask, text.shape[1], text.device)
        shown = ALL_VISIBLE if image is None else Visibility.of(image_mask, image.shape[1], image.device)
        recompute = self.config.checkpoint and self.training and record is None and torch.is_grad_enabled()
        pairs = list(zip(self.text.blocks, self.image.blocks, strict=True))
        for index, (reader, watcher) in enumerate(pairs):
            last = index == len(pairs) - 1
            at = (
                torch.zeros(text.shape[0], dtype=torch.int64, device=text.device)
                if last and wanted == "class"
                else None
            )
            read = partial(reader, at=at, record=record, path=f"text.blocks.{index}")
            watch = partial(watcher, at=at, record=record, path=f"image.blocks.{index}")
            for_text, for_image = (text, image, seen, shown), (image, text, shown, seen)
            text = checkpoint(read, *for_text, use_reentrant=False) if recompute else read(*for_text)
            if image is None or (last and wanted == "text"):
                image = None
            else:
                image = checkpoint(watch, *for_image, use_reentrant=False) if recompute else watch(*for_image)
        return self.text.norm(text), None if image is None else self.image.norm(image)
