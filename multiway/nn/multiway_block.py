"""One multiway block, and its sizes; `nn/multiway.py` says what it is for."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.nn.attention import Visibility, attend, choose_kernel
from multiway.nn.block import Activation, FeedForward, Residual, TransformerConfig
from multiway.nn.routed import Routed, Segments, Shared

__all__ = ["MultiwayBlock", "MultiwayConfig"]


@dataclass(frozen=True)
class MultiwayConfig:
    """Sizes and choices of a stack of multiway blocks.

    Attributes:
        width, layers, heads, mlp_ratio, activation, epsilon: of the blocks.
        experts: names of the modalities that every block has an expert for. One name is an ordinary transformer.
        fusion_layers: blocks at the top that have a further expert, `fusion`, for pairs (VLMo: 2 of 12; BEiT-3: 3 of 40).
        attention: `shared` projections for all modalities (both papers), or `decoupled` ones (BEiT-3 as released).
        key_bias: BEiT and VLMo have no bias on keys; softmax would not see it.
        sub_norm: a further norm before the output projections of attention and feed-forward part (Magneto, Wang et al.,
            2022, arXiv 2210.06423; BEiT-3 as released).
        layer_scale: initial g1 and g2; None for none.
        drop_path: stochastic depth of the last block, rising linearly.
        init_std: standard deviation with which matrices start. BERT's 0.02 is made for 768; at width 128 a map shrinks its
            input four times with it.
        checkpoint: recompute blocks in the backward pass.
    """

    width: int = 128
    layers: int = 6
    heads: int = 2
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    epsilon: float = 1e-6
    experts: tuple[str, ...] = ("language", "vision")
    fusion_layers: int = 0
    attention: Literal["shared", "decoupled"] = "shared"
    key_bias: bool = False
    sub_norm: bool = False
    layer_scale: float | None = None
    drop_path: float = 0.0
    init_std: float = 0.02
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if not self.experts or "fusion" in self.experts or not 0 <= self.fusion_layers <= self.layers:
            raise ValueError(
                f"experts are {self.experts} with {self.fusion_layers} fusion layers of {self.layers}; expected one or more "
                "names other than `fusion`, and no more fusion layers than layers"
            )
        if self.fusion_layers and self.attention == "decoupled":
            raise ValueError(
                "decoupled attention has projections by modality and none for `fusion`: set fusion_layers=0"
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads; choose a multiple")

    @property
    def hidden(self) -> int:
        """Hidden width of the feed-forward parts."""
        return int(self.width * self.mlp_ratio)


class _Projection(nn.Module):
    """Queries, keys and values by one merged matrix, whose keys may have no bias."""

    def __init__(self, width: int, key_bias: bool, init_std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3 * width, width))
        nn.init.trunc_normal_(self.weight, std=init_std, a=-2 * init_std, b=2 * init_std)
        self.query_bias = nn.Parameter(torch.zeros(width))
        self.key_bias = nn.Parameter(torch.zeros(width)) if key_bias else None
        self.value_bias = nn.Parameter(torch.zeros(width))

    def _bias(self) -> Tensor:
        key = torch.zeros_like(self.query_bias) if self.key_bias is None else self.key_bias
        return torch.cat([self.query_bias, key, self.value_bias])

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, 3W)."""
        return F.linear(tokens, self.weight, self._bias())

    def query(self, tokens: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        width = len(self.query_bias)
        return F.linear(tokens, self.weight[:width], self.query_bias)

    def key_value(self, tokens: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, 2W)."""
        width = len(self.query_bias)
        return F.linear(tokens, self.weight[width:], self._bias()[width:])


class _SubNormFeedForward(FeedForward):
    """A feed-forward part with a norm of its hidden units (Magneto)."""

    def __init__(self, width: int, hidden: int, activation: Activation, epsilon: float) -> None:
        super().__init__(width, hidden, activation)
        self.norm = nn.LayerNorm(hidden, epsilon)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.down(self.norm(self.activation(self.up(tokens))))  # type: ignore[no-any-return]


class MultiwayBlock(nn.Module):
    """One multiway block."""

    def __init__(self, config: MultiwayConfig, layer: int) -> None:
        super().__init__()
        self.heads = config.heads
        own = list(config.experts)
        by_expert = config.attention == "decoupled"
        norm = partial(nn.LayerNorm, config.width, config.epsilon)

        def place(make: Callable[[], nn.Module]) -> nn.Module:
            return Routed(make, own) if by_expert else Shared(make())

        self.attention_norm = place(norm)
        self.projection = place(partial(_Projection, config.width, config.key_bias, config.init_std))
        self.mixed_norm = place(norm) if config.sub_norm else None
        self.out = place(partial(nn.Linear, config.width, config.width))

        def feed_forward() -> nn.Module:
            if config.sub_norm:
                return _SubNormFeedForward(config.width, config.hidden, config.activation, config.epsilon)
            return FeedForward(config.width, config.hidden, config.activation)

        # A norm and a feed-forward part for each expert, in either form.
        fused = ["fusion"] if layer >= config.layers - config.fusion_layers else []
        self.mlp_norm = Routed(norm, own + fused)
        self.mlp = Routed(feed_forward, own + fused)
        residual = TransformerConfig(width=config.width, layer_scale=config.layer_scale)
        drop_path = config.drop_path * layer / max(config.layers - 1, 1)
        self.attention_residual, self.mlp_residual = Residual(residual, drop_path), Residual(residual, drop_path)

    def forward(
        self,
        tokens: Tensor,
        segments: Segments,
        visibility: Visibility,
        bias: Tensor | None = None,
        first: bool = False,
        record: MutableMapping[str, Tensor] | None = None,
        path: str = "block",
        split: int | None = None,
    ) -> Tensor:
        """(B, N, W) -> (B, N, W), or (B, 1, W) where only the first token is wanted."""
        normed = self.attention_norm(tokens, segments)
        backward = torch.is_grad_enabled() and (tokens.requires_grad or normed.requires_grad)
        # Of the first token only the query is needed; of the others only keys and values.
        projected = [(self.projection(normed, segments), 3)]
        wanted = segments
        if first:
            tokens, wanted = tokens[:, :1], ((segments[0][0], 1),)
            visibility = visibility.at(torch.zeros(tokens.shape[0], dtype=torch.int64, device=tokens.device))
            bias = None if bias is None else bias[..., :1, :]
            query = self.projection(normed[:, :1], wanted, "query")
            projected = [(query, 1), (self.projection(normed, segments, "key_value"), 2)]
        # The projection's dtype counts: under autocast norms are in fp32 and products are not.
        like = projected[0][0]
        kernel = "written" if record is not None else choose_kernel(like, normed.shape[1], backward=backward)
        query, key, value = (part for each, parts in projected for part in self._split(each, parts))
        mixed, weights = attend(query, key, value, visibility, bias=bias, kernel=kernel, split=split)
        if record is not None and weights is not None:
            record[f"{path}.attention"] = weights
        mixed = mixed.transpose(1, 2).flatten(2)
        if self.mixed_norm is not None:
            mixed = self.mixed_norm(mixed, wanted)
        tokens = self.attention_residual(tokens, self.out(mixed, wanted))
        return self.mlp_residual(tokens, self.mlp(self.mlp_norm(tokens, wanted), wanted))  # type: ignore[no-any-return]

    def _split(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, N, parts x W) -> `parts` tensors (B, H, N, D)."""
        rows, length, _ = projected.shape
        return projected.view(rows, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4).contiguous().unbind(0)
