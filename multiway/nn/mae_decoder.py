"""The decoder of a masked autoencoder: from the visible patches' tokens to the pixels of all.

K. He et al., MAE, 2022, arXiv 2111.06377, section 3 and appendix A.1: a projection to the decoder's width, mask tokens put in, the
decoder's own positions added to *all* tokens (a mask token would else not know where it is), transformer blocks, and a linear map
to a patch's values. It is small, and thrown away after training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from multiway.nn.hidden_patches import put_back
from multiway.nn.patch import resize_positions, sincos_positions
from multiway.nn.transformer import Activation, Transformer, TransformerConfig

__all__ = ["MaeDecoder", "MaeDecoderConfig", "xavier_init"]


@dataclass(frozen=True)
class MaeDecoderConfig:
    """Sizes; the defaults are the paper's (section 4.1).

    Attributes:
        width, layers, heads, mlp_ratio: of the blocks.
        positions: `sincos`, fixed; `learned`; or `none`, with which all hidden patches are told alike.
    """

    width: int = 512
    layers: int = 8
    heads: int = 16
    mlp_ratio: float = 4.0
    positions: Literal["sincos", "learned", "none"] = "sincos"


class MaeDecoder(nn.Module):
    """Projection, mask token, positions, blocks, values.

    Args:
        config: sizes.
        width: W, of the encoder's tokens.
        grid: (rows, columns) of patches at the configured size.
        prefix: tokens before the patches, 0 or 1.
        output: P, values of a patch.
        restores: whether the encoder leaves hidden patches out; without, it gives a token for each, and there is no mask token here.
        activation, epsilon: of the blocks.
    """

    positions: Tensor | None

    def __init__(
        self,
        config: MaeDecoderConfig,
        width: int,
        grid: tuple[int, int],
        prefix: int,
        output: int,
        *,
        restores: bool = True,
        activation: Activation = "gelu",
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__()
        self.config, self.grid, self.prefix = config, grid, prefix
        self.embed = nn.Linear(width, config.width)
        self.mask_token = nn.Parameter(torch.empty(config.width)) if restores else None
        learned = config.positions == "learned"
        if config.positions == "sincos":
            self.register_buffer("positions", sincos_positions(grid, config.width), persistent=False)
        else:
            self.positions = nn.Parameter(torch.empty(grid[0] * grid[1], config.width)) if learned else None
        # Of fixed positions the class token's is zero.
        self.class_position = nn.Parameter(torch.zeros(config.width)) if learned and prefix else None
        self.transformer = Transformer(
            TransformerConfig(
                config.width, config.layers, config.heads, config.mlp_ratio, activation=activation, epsilon=epsilon
            )
        )
        self.predict = nn.Linear(config.width, output)
        xavier_init(self)
        if self.mask_token is not None:
            nn.init.normal_(self.mask_token, std=0.02)
        if learned and self.positions is not None:
            nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, tokens: Tensor, mask: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Decode.

        Args:
            tokens: (B, prefix + K, W), K the visible patches; all N of them where the encoder has seen mask tokens.
            mask: (B, N) bool, True at hidden patches.
            grid: (rows, columns) of the picture, where it is not the configured one.

        Returns:
            (B, N, P), of visible patches too.
        """
        embedded = self.embed(tokens)
        first, patches = embedded[:, : self.prefix], embedded[:, self.prefix :]
        if self.mask_token is not None:
            patches = put_back(patches, mask, self.mask_token)
        if self.positions is not None:
            patches = patches + resize_positions(self.positions, self.grid, grid or self.grid).to(patches.dtype)
        if self.class_position is not None:
            first = first + self.class_position
        decoded: Tensor = self.predict(self.transformer(torch.cat([first, patches], 1))[:, self.prefix :])
        return decoded


def xavier_init(module: nn.Module) -> None:
    """The start of MAE (A.1, after the ViT paper's code): linear maps from a uniform of their fans, biases zero, norms at identity."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
