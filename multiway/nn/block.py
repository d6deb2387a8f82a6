"""The block of every transformer here: self-attention, attention over a memory, feed-forward.

Pre-norm as in ViT (Dosovitskiy et al., 2021, arXiv:2010.11929, equations 2-3), post-norm as in the original
(Vaswani et al., 2017, arXiv:1706.03762) and BERT.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.config import LATER
from multiway.nn.attention import ALL_VISIBLE, Attention, Visibility, tokens_at
from multiway.nn.cache import BlockCache

__all__ = ["ACTIVATIONS", "Activation", "Block", "FeedForward", "Residual", "TransformerConfig"]

Activation = Literal["gelu", "quick_gelu", "gelu_tanh", "relu", "swiglu"]


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x): the approximation of GELU that OpenAI's CLIP was trained with."""
    # As SiLU, which torch fuses forward and backward: 1.4x faster in fp32 than the product written out.
    return F.silu(1.702 * x) * (1 / 1.702)


def swiglu(x: Tensor) -> Tensor:
    """SiLU of the first half of the channels times the second: (..., 2 H) -> (..., H) (Shazeer, 2020, arXiv:2002.05202)."""
    gate, value = x.chunk(2, -1)
    return F.silu(gate) * value


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "quick_gelu": quick_gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "swiglu": swiglu,
}
_HALVES = ("swiglu",)  # of what they are given, by gating one half with the other


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and choices of a transformer.

    Attributes:
        width: W, of a token.
        layers, heads: number of blocks, and of attention heads in each.
        mlp_ratio: hidden width of the feed-forward part over W.
        mlp_width: that hidden width itself, where it is no multiple; wins over `mlp_ratio`.
        activation: `gelu` is the exact one (erf); weights trained with one activation are wrong with another. `swiglu` has a gate
            as wide as the hidden layer, and so half as many weights again.
        norm: LayerNorm before each part (`pre`) or after the residual sum (`post`, BERT).
        epsilon: of LayerNorm; travels with the weights.
        causal: a token sees only itself and what comes before.
        cross_width: width of a memory that blocks can attend to; None for none.
        cross_layers: which blocks do, counted from 0; None for all of them, given a `cross_width`.
        dropout: after each part; attention_dropout: of attention weights.
        drop_path: chance that a row skips a part, rising linearly to this at the last block (arXiv:1603.09382).
        layer_scale: initial value of a learned factor per channel on each part (arXiv:2103.17239); None for none.
        qkv_bias: whether query, key and value projections have a bias.
        final_norm: a last LayerNorm after the blocks; only pre-norm has use for it.
        checkpoint: recompute each block in the backward pass rather than keep its activations.
        biased: positions are known by a bias on the scores alone; blocks refuse to run without one.
    """

    width: int = 128
    layers: int = 4
    heads: int = 2
    mlp_ratio: float = 4.0
    mlp_width: int | None = None
    activation: Activation = "gelu"
    norm: Literal["pre", "post"] = "pre"
    epsilon: float = 1e-6
    causal: bool = False
    cross_width: int | None = None
    cross_layers: tuple[int, ...] | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    layer_scale: float | None = None
    qkv_bias: bool = True
    final_norm: bool = True
    checkpoint: bool = False
    biased: bool = field(default=False, metadata=LATER)

    @classmethod
    def of(cls, tower: object) -> TransformerConfig:
        """The blocks that a tower's config asks for: every field that the two share, the rest by default."""
        return cls(**{each.name: getattr(tower, each.name) for each in fields(cls) if hasattr(tower, each.name)})

    @property
    def hidden(self) -> int:
        """Hidden width of the feed-forward part."""
        return self.mlp_width if self.mlp_width is not None else int(self.width * self.mlp_ratio)

    def crosses(self, layer: int) -> bool:
        """Whether block `layer` attends to a memory."""
        return self.cross_width is not None and (self.cross_layers is None or layer in self.cross_layers)


class FeedForward(nn.Module):
    """Two linear maps with an activation between, on each token by itself."""

    def __init__(self, width: int, hidden: int, activation: Activation = "gelu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
        self.up = nn.Linear(width, 2 * hidden if activation in _HALVES else hidden)
        self.down = nn.Linear(hidden, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        return self.down(self.activation(self.up(tokens)))


class Residual(nn.Module):
    """What happens to the output of a part before it is added: dropout, layer scale, stochastic depth."""

    def __init__(self, config: TransformerConfig, drop_path: float) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.drop_path = drop_path
        self.scale = (
            None if config.layer_scale is None else nn.Parameter(torch.full((config.width,), config.layer_scale))
        )

    def forward(self, tokens: Tensor, change: Tensor) -> Tensor:
        """tokens + change, both (B, N, W)."""
        if self.dropout and self.training:
            change = F.dropout(change, self.dropout)
        if self.scale is not None:
            change = change * self.scale
        if self.drop_path and self.training:
            keep = 1 - self.drop_path
            change = change * (torch.rand(change.shape[0], 1, 1, device=change.device) < keep).to(change.dtype) / keep
        return tokens + change


class Block(nn.Module):
    """Self-attention, attention over a memory where the config says so, and a feed-forward part.

    The parts are attributes: a method that routes tokens to experts replaces `mlp`, one that shares weights between
    an encoder and a decoder assigns the same module to both.
    """

    def __init__(self, config: TransformerConfig, layer: int = 0) -> None:
        super().__init__()
        drop_path = config.drop_path * layer / max(config.layers - 1, 1)
        norm = partial(nn.LayerNorm, config.width, config.epsilon)
        self.pre, self.biased = config.norm == "pre", config.biased
        self.attention_norm = norm()
        self.attention = Attention(config.width, config.heads, bias=config.qkv_bias, dropout=config.attention_dropout)
        self.attention_residual = Residual(config, drop_path)
        self.cross: Attention | None = None
        if config.crosses(layer):
            self.cross_norm = norm()
            self.cross = Attention(
                config.width,
                config.heads,
                memory_width=config.cross_width,
                bias=config.qkv_bias,
                dropout=config.attention_dropout,
            )
            self.cross_residual = Residual(config, drop_path)
        self.mlp_norm = norm()
        self.mlp: nn.Module = FeedForward(config.width, config.hidden, config.activation)
        self.mlp_residual = Residual(config, drop_path)

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor | None = None,
        visibility: Visibility = ALL_VISIBLE,
        memory_visibility: Visibility = ALL_VISIBLE,
        *,
        memory_rows: Tensor | None = None,
        rows: Tensor | None = None,
        at: Tensor | None = None,
        bias: Tensor | None = None,
        cache: BlockCache | None = None,
        instead: nn.ModuleDict | None = None,
        record: MutableMapping[str, Tensor] | None = None,
        path: str = "block",
    ) -> Tensor:
        """Run the parts. Without a memory a cross-attending block leaves that part out, as BLIP's text encoder does.

        Args:
            tokens: (B, N, W).
            memory: (B, M, cross_width).
            memory_rows: (B,) which row of the memory each row attends to; see `Attention.forward`.
            rows: (R,) which of the tokens' rows each row is from the attention over the memory on, of which B is then R.
            visibility, memory_visibility: what the tokens may look at among themselves, and in the memory.
            at: (B,) or (B, P), the positions that are wanted; see `Attention.forward`.
            bias: added to the scores of self-attention.
            cache: keys and values of earlier calls; see `Attention.forward`.
            instead: parts that stand in for the block's own in this call, by their names here (`attention`, `mlp_norm`,
                ...): weights that serve two modes share the rest.
            record, path: where attention maps go.

        Returns:
            (B, N, W), or (B, P, W) with `at`, P being 1 for one position per row.

        Raises:
            ValueError: if the config says that there is a bias, and none was given.
        """
        if self.biased and bias is None:
            raise ValueError(
                "these blocks know where a token is by a bias on attention, and none was given; run the whole tower, or a method "
                "whose backbone has no relative positions: --method.backbone.relative none"
            )
        parts = {} if instead is None else dict(instead.items())
        own, seen = (None, None) if cache is None else (cache.own, cache.memory)
        attention = parts.get("attention", self.attention)

        def look(x: Tensor) -> Tensor:
            return attention(x, None, visibility, at=at, bias=bias, cache=own, record=record, path=f"{path}.attention")

        tokens = self._part(tokens, look, parts.get("attention_norm", self.attention_norm), self.attention_residual, at)
        if rows is not None:
            tokens = tokens.index_select(0, rows)
        if self.cross is not None and (memory is not None or (seen is not None and seen.key is not None)):
            cross = parts.get("cross", self.cross)

            def consult(x: Tensor) -> Tensor:
                return cross(
                    x,
                    memory,
                    memory_visibility,
                    memory_rows=memory_rows,
                    cache=seen,
                    record=record,
                    path=f"{path}.cross",
                )

            tokens = self._part(tokens, consult, parts.get("cross_norm", self.cross_norm), self.cross_residual)
        mlp, norm = parts.get("mlp", self.mlp), parts.get("mlp_norm", self.mlp_norm)
        return self._part(tokens, mlp, norm, self.mlp_residual)

    def _part(
        self,
        tokens: Tensor,
        part: Callable[[Tensor], Tensor],
        norm: nn.Module,
        residual: nn.Module,
        at: Tensor | None = None,
    ) -> Tensor:
        change = part(norm(tokens)) if self.pre else part(tokens)
        if at is not None:
            tokens = tokens_at(tokens, at)
        tokens = residual(tokens, change)
        return tokens if self.pre else norm(tokens)
