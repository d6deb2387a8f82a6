"""The Vision Transformer (Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, arXiv:2010.11929), with the
variations of CLIP (a norm before the blocks, no bias in the patch embedding) and MAE (fixed positions, kept patches).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from multiway.nn.patch import ConvStem, PatchEmbed, resize_positions, sincos_positions
from multiway.nn.pool import Tower
from multiway.nn.transformer import Activation, Transformer, TransformerConfig

__all__ = ["VisionConfig", "VisionTransformer"]


@dataclass(frozen=True)
class VisionConfig:
    """Sizes and choices of a Vision Transformer.

    Attributes:
        size: side, in pixels, of the pictures whose grid has positions of its own; other sizes interpolate them.
        patch: side of a patch, in pixels.
        width, layers, heads, mlp_ratio, activation, epsilon, dropout, drop_path, layer_scale, checkpoint: of the
            blocks; see `TransformerConfig`.
        pool: the class token, or the mean over patches.
        class_token: whether there is one; None for exactly where `pool` needs it.
        pre_norm: CLIP's norm between embedding and blocks.
        patch_bias: whether the patch embedding has a bias (CLIP: no).
        stem: `patch` cuts and projects, as published; `conv` puts small convolutions before the blocks (`ConvStem`).
        positions: `learned`, or fixed sines and cosines.
    """

    size: int = 32
    patch: int = 4
    width: int = 128
    layers: int = 4
    heads: int = 2
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    pool: Literal["class", "mean"] = "class"
    class_token: bool | None = None
    pre_norm: bool = False
    patch_bias: bool = True
    stem: Literal["patch", "conv"] = "patch"
    positions: Literal["learned", "sincos"] = "learned"
    epsilon: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0
    layer_scale: float | None = None
    checkpoint: bool = False

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands before the patches."""
        return self.pool == "class" if self.class_token is None else self.class_token


class VisionTransformer(nn.Module):
    """Patches, positions, blocks, pool.

    Attributes:
        width, token_width: W of `pooled` and of `tokens`, the same here.
        grid: (rows, columns) of patches at the configured size.
        prefix: number of tokens before the patches, 0 or 1.

    Raises:
        ValueError: if patches do not divide the size, or the pool needs a class token that the config denies.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        if config.size % config.patch:
            raise ValueError(f"size {config.size} is not divisible by patch {config.patch}; change one of them")
        if config.pool == "class" and not config.has_class_token:
            raise ValueError("pool='class' needs a class token; set class_token=None or pool='mean'")
        self.config = config
        self.width = self.token_width = width = config.width
        self.grid = (config.size // config.patch,) * 2
        self.prefix = int(config.has_class_token)
        patches = self.grid[0] * self.grid[1]
        embed = PatchEmbed if config.stem == "patch" else ConvStem
        self.patches = embed(config.patch, width, bias=config.patch_bias)
        self.class_token = nn.Parameter(torch.zeros(width)) if self.prefix else None
        self.class_position = nn.Parameter(torch.zeros(width)) if self.prefix else None
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(patches, width))
            nn.init.trunc_normal_(self.positions, std=0.02)
        else:
            self.register_buffer("positions", sincos_positions(self.grid, width), persistent=False)
        self.pre_norm: nn.Module = nn.LayerNorm(width, config.epsilon) if config.pre_norm else nn.Identity()
        self.transformer = Transformer(TransformerConfig.of(config))
        if config.stem == "patch":
            nn.init.trunc_normal_(self.patches.project.weight, std=0.02)
        for parameter in (self.class_token, self.class_position):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    def embed(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """What enters the blocks.

        Args:
            images: (B, 3, H, W).
            keep: (B, K) int64 numbers of the patches that are kept; the others cost nothing in the blocks. None for all.

        Returns:
            (B, prefix + N, W), or (B, prefix + K, W).
        """
        positions = resize_positions(self.positions, self.grid, self.patches.grid(images))
        patches = self.patches.unfold(images)
        if keep is None:
            tokens = self.patches.project(patches) + positions
        else:
            patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))
            tokens = self.patches.project(patches) + positions[keep]
        if self.class_token is not None and self.class_position is not None:
            first = (self.class_token + self.class_position).to(tokens.dtype).expand(tokens.shape[0], 1, -1)
            tokens = torch.cat([first, tokens], 1)
        return self.pre_norm(tokens)

    def forward(
        self,
        images: Tensor,
        keep: Tensor | None = None,
        *,
        tokens: bool = True,
        record: MutableMapping[str, Tensor] | None = None,
    ) -> Tower:
        """Encode.

        Args:
            images: (B, 3, H, W), normalised; any size that divides into patches.
            keep: see `embed`.
            tokens: whether all last tokens are wanted; if only the pooled class token is, the last block costs a
                fifth (the result is the same).
            record: receives hidden states and attention maps by path; see `Transformer.forward`.

        Returns:
            pooled (B, W) and tokens (B, prefix + N, W).
        """
        embedded = self.embed(images, keep)
        by_class = self.config.pool == "class"
        at = None
        if by_class and not tokens:
            at = torch.zeros(images.shape[0], dtype=torch.int64, device=images.device)
        last = self.transformer(embedded, at=at, record=record)
        return Tower(last[:, 0] if by_class else last[:, self.prefix :].mean(1), last)
