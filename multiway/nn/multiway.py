"""Multiway transformer blocks: attention that all modalities share, and an expert for each beside it.

VLMo (Bao et al., 2022, arXiv 2111.02358, section 3.1: Mixture-of-Modality-Experts) and BEiT-3 (Wang et al., 2023, arXiv
2208.10442, section 2.1: Multiway). With m the modality of a token,

    h' = h  + g1 Attention(LN(h))            over all tokens of the sequence
    h  = h' + g2 FFN_m(LN_m(h'))             by the token's own expert

The released BEiT-3 differs from its paper: there each modality has its own projections and norms as well, and only the
softmax mixes them. Both forms are here, as `attention="shared"` and `"decoupled"`.

A sequence is told apart by its *segments*, from left to right: `(("language", 12), ("vision", 65))`. Which expert a
segment goes through is therefore the caller's word: the top blocks' expert for pairs is `(("fusion", 77),)`.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multiway.nn.attention import ALL_VISIBLE, Visibility
from multiway.nn.multiway_block import MultiwayBlock, MultiwayConfig
from multiway.nn.routed import Routed, Segments, Shared
from multiway.nn.transformer import init_weights

__all__ = ["Multiway", "MultiwayConfig", "Segments"]


class Multiway(nn.Module):
    """A stack of multiway blocks over tokens that are already embedded."""

    def __init__(self, config: MultiwayConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(MultiwayBlock(config, layer) for layer in range(config.layers))
        norm = partial(nn.LayerNorm, config.width, config.epsilon)
        self.norm = Routed(norm, config.experts) if config.attention == "decoupled" else Shared(norm())
        init_weights(self, config.init_std)
        if config.sub_norm:
            self._magneto_init()

    @property
    def top(self) -> int:
        """Number of the first block that has a fusion expert."""
        return self.config.layers - self.config.fusion_layers

    def forward(
        self,
        tokens: Tensor,
        segments: Segments,
        visibility: Visibility = ALL_VISIBLE,
        *,
        bias: Tensor | None = None,
        start: int = 0,
        stop: int | None = None,
        first: bool = False,
        record: MutableMapping[str, Tensor] | None = None,
        split: int | None = None,
    ) -> Tensor:
        """Run blocks [start, stop).

        Args:
            tokens: (B, N, W); with `start` above 0, what the blocks before gave.
            segments: (expert, tokens) from left to right; the tokens sum to N.
            visibility: which key each query may look at.
            bias: (layers, B or 1, H, N, N) added to the scores of each block (relative positions).
            start, stop: blocks to run; the final norm follows only where the last one is run.
            first: whether the first token alone is wanted; the last block then computes little else.
            record: receives attention maps as `blocks.3.attention`, and the result of the last block, normed, as `tokens`; attention
                is then computed in its written-out form.
            split: with `record`: of attention only the part of the first `split` tokens over those after them, which the result can be
                differentiated by; see `attend`.

        Returns:
            (B, N, W); (B, 1, W) with `first`.

        Raises:
            ValueError: if the segments do not fit the tokens.
            KeyError: for a segment without an expert.
        """
        if sum(length for _, length in segments) != tokens.shape[1]:
            raise ValueError(
                f"segments {tuple(segments)} for {tokens.shape[1]} tokens; their lengths must add up to that"
            )
        last = self.config.layers - 1
        recompute = self.config.checkpoint and self.training and record is None and torch.is_grad_enabled()
        for index in range(start, last + 1 if stop is None else stop):
            own = None if bias is None else bias[index]
            path = "" if record is None else f"blocks.{index}"  # a compiled block would be made anew for every name
            run = partial(self.blocks[index], first=first and index == last, record=record, path=path, split=split)
            seen = (tokens, segments, visibility, own)
            tokens = checkpoint(run, *seen, use_reentrant=False) if recompute else run(*seen)
        if stop is not None:
            return tokens
        tokens = self.norm(tokens, ((segments[0][0], 1),) if first else segments)
        if record is not None:
            record["tokens"] = tokens
        return tokens

    def _magneto_init(self) -> None:
        """Magneto's start: values and feed-forward parts wider by sqrt(ln 2L), L the layers (section 3.2, encoders)."""
        gain = math.sqrt(math.log(2 * self.config.layers))
        for block in self.blocks:
            for name, parameter in block.named_parameters():
                if parameter.ndim < 2:
                    continue
                with torch.no_grad():
                    if "projection" in name:
                        parameter[2 * self.config.width :].mul_(gain)
                    else:
                        parameter.mul_(gain)
