"""The Vision Transformer (Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, arXiv:2010.11929), with the
variations of CLIP (a norm before the blocks, no bias in the patch embedding), MAE (fixed positions, kept patches), BEiT
(relative positions, a norm after the mean) and DINOv2 (registers).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from multiway.config import LATER
from multiway.nn.patch import ConvStem, PatchEmbed, resize_positions, sincos_positions
from multiway.nn.pool import Tower
from multiway.nn.relative_patches import RelativePatches
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
        positions: `learned`, fixed sines and cosines, or `none`.
        relative: a bias on attention for each displacement of patches (`nn/relative_patches.py`): one table that all blocks
            share, or one for each of the `blocks`.
        registers: tokens without a place between the class token and the patches, learned, whose outputs nobody reads (Darcet
            et al., 2024, arXiv:2309.16588).
        pool_norm: BEiT's norm of the mean over patches, in place of that of every token: these are as the last block left them.
        antialias: whether positions are averaged where a smaller grid is interpolated.
        edges: whether a size need be no multiple of the patch; what fills no patch is not seen (SigLIP's 384 pixels by 14).
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
    positions: Literal["learned", "sincos", "none"] = "learned"
    epsilon: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0
    layer_scale: float | None = None
    checkpoint: bool = False
    relative: Literal["none", "shared", "blocks"] = field(default="none", metadata=LATER)
    registers: int = field(default=0, metadata=LATER)
    pool_norm: bool = field(default=False, metadata=LATER)
    antialias: bool = field(default=False, metadata=LATER)
    edges: bool = field(default=False, metadata=LATER)

    @property
    def biased(self) -> bool:
        """Whether blocks need a bias, under the name that `TransformerConfig` has for it."""
        return self.relative != "none"

    @property
    def extended(self) -> bool:
        """Whether there is more than the ViTs of CLIP, MAE and their like have: most layouts of other libraries have no place for it."""
        later = self.biased or self.registers > 0 or self.pool_norm or self.antialias or self.edges
        return later or self.positions == "none" or self.activation == "swiglu"

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands before the patches."""
        return self.pool == "class" if self.class_token is None else self.class_token


class VisionTransformer(nn.Module):
    """Patches, positions, blocks, pool.

    Attributes:
        width, token_width: W of `pooled` and of `tokens`, the same here.
        grid: (rows, columns) of patches at the configured size.
        prefix: number of tokens before the patches: the class token and registers.

    Raises:
        ValueError: if patches do not divide the size, or the pool, registers or relative positions need a class token that the
            config denies, or no registers.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        if config.size < config.patch or (config.size % config.patch and not config.edges):
            raise ValueError(f"size {config.size} is not divisible by patch {config.patch}; change one of them")
        if config.edges and config.stem != "patch":
            raise ValueError("edges=True leaves pixels out, which stem='conv' would see; set one of them back")
        if config.pool == "class" and not config.has_class_token:
            raise ValueError("pool='class' needs a class token; set class_token=None or pool='mean'")
        if (config.biased and (config.registers or not config.has_class_token)) or (
            config.registers and not config.has_class_token
        ):
            raise ValueError(
                f"relative={config.relative!r} and registers={config.registers} with class_token={config.has_class_token}: relative "
                "positions are of one class token and patches, and registers come after a class token; leave one of them out, or set "
                "class_token=True"
            )
        if config.pool_norm and config.pool != "mean":
            raise ValueError(f"pool_norm norms the mean over patches, and pool is {config.pool!r}; set pool='mean'")
        self.config = config
        self.width = self.token_width = width = config.width
        self.grid = (config.size // config.patch,) * 2
        self.prefix = int(config.has_class_token) + config.registers
        patches = self.grid[0] * self.grid[1]
        self.patches = (
            PatchEmbed(config.patch, width, bias=config.patch_bias, edges=config.edges)
            if config.stem == "patch"
            else ConvStem(config.patch, width, bias=config.patch_bias)
        )
        first, placed = config.has_class_token, config.positions != "none"
        self.class_token = nn.Parameter(torch.zeros(width)) if first else None
        self.class_position = nn.Parameter(torch.zeros(width)) if first and placed else None
        self.registers = nn.Parameter(torch.zeros(config.registers, width)) if config.registers else None
        if not placed:
            self.register_parameter("positions", None)
        elif config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(patches, width))
            nn.init.trunc_normal_(self.positions, std=0.02)
        else:
            self.register_buffer("positions", sincos_positions(self.grid, width), persistent=False)
        self.pre_norm: nn.Module = nn.LayerNorm(width, config.epsilon) if config.pre_norm else nn.Identity()
        self.transformer = Transformer(replace(TransformerConfig.of(config), final_norm=not config.pool_norm))
        self.pool_norm: nn.Module = nn.LayerNorm(width, config.epsilon) if config.pool_norm else nn.Identity()
        layers = None if config.relative == "shared" else config.layers
        self.relative = RelativePatches(config.heads, self.grid, layers) if config.biased else None
        if config.stem == "patch":
            nn.init.trunc_normal_(self.patches.project.weight, std=0.02)
        for parameter in (self.class_token, self.class_position, self.registers):
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
        positions = self.places(images)
        patches = self.patches.unfold(images)
        if keep is None:
            tokens = self.patches.project(patches) + positions
        else:
            patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))
            tokens = self.patches.project(patches) + positions[keep]
        if self.class_token is not None:
            first = self.class_token if self.class_position is None else self.class_token + self.class_position
            ahead = first[None] if self.registers is None else torch.cat([first[None], self.registers])
            tokens = torch.cat([ahead.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], 1)
        return self.pre_norm(tokens)

    def places(self, images: Tensor) -> Tensor:
        """(N, W) what is added to each patch for being where it is; zeros without positions."""
        grid = self.patches.grid(images)
        if self.positions is None:
            return self.patches.project.weight.new_zeros(grid[0] * grid[1], self.width)
        return resize_positions(self.positions, self.grid, grid, antialias=self.config.antialias)

    def blocks(
        self,
        embedded: Tensor,
        grid: tuple[int, int],
        *,
        at: Tensor | None = None,
        record: MutableMapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The transformer, with the bias of relative positions where there is one.

        Args:
            embedded: (B, prefix + N, W), what `embed` gives, or the same with patches covered.
            grid: (rows, columns) of these patches.
            at, record: see `Transformer.forward`.
        """
        bias = None if self.relative is None else self.relative(grid)
        return self.transformer(embedded, at=at, bias=bias, record=record)  # type: ignore[no-any-return]

    def pool(self, tokens: Tensor) -> Tensor:
        """(B, prefix + N, W) last tokens -> (B, W) the vector that the config makes of them."""
        if self.config.pool == "class":
            return tokens[:, 0]
        return self.pool_norm(tokens[:, self.prefix :].mean(1))  # type: ignore[no-any-return]

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

        Raises:
            ValueError: if patches are left out and positions are relative.
        """
        if keep is not None and self.relative is not None:
            raise ValueError("relative positions are of whole grids, and patches were left out; set relative='none'")
        embedded = self.embed(images, keep)
        at = None
        if self.config.pool == "class" and not tokens:
            at = torch.zeros(images.shape[0], dtype=torch.int64, device=images.device)
        last = self.blocks(embedded, self.patches.grid(images), at=at, record=record)
        return Tower(self.pool(last), last)
