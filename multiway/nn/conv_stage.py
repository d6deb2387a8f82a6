"""A picture's tokens out of convolutions, for a transformer that reads them beside words.

Wang et al., SimVLM, 2022, arXiv 2108.10904, section 3.2: the first three blocks of a ResNet (He et al., 2016, arXiv 1512.03385)
reduce the picture by 16, as CoAtNet (Dai et al., 2021, arXiv 2106.04803) found better than one linear map of patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multiway.nn.patch import ConvStem, PatchEmbed, resize_positions
from multiway.nn.resnet import ResNet, ResNetConfig

__all__ = ["ConvStage", "ConvStageConfig"]


@dataclass(frozen=True)
class ConvStageConfig:
    """Which convolutions.

    Attributes:
        size: side, in pixels, of the pictures whose grid has positions of its own; other sizes interpolate them.
        patch: pixels between two tokens; 16 for a ResNet's three stages.
        depths: bottleneck blocks of the stages; none for a small stem (`nn.patch.ConvStem`), or, with `convolve=False`, for patches
            that are cut and projected.
        convolve: False for the linear map, which the paper's section 4.4 compares with.
    """

    size: int = 64
    patch: int = 8
    depths: tuple[int, ...] = ()
    convolve: bool = True


class ConvStage(nn.Module):
    """Convolutions, a linear map to the transformer's width, positions.

    Args:
        width: W, of a token.

    Raises:
        ValueError: if the tokens do not divide the picture, or the stages do not reduce it to them.
    """

    def __init__(self, config: ConvStageConfig, width: int) -> None:
        super().__init__()
        if config.size % config.patch:
            raise ValueError(f"size {config.size} is not divisible by patch {config.patch}; change one of them")
        if config.depths and (2 ** (len(config.depths) + 1) != config.patch or not config.convolve):
            raise ValueError(
                f"{len(config.depths)} stages of a ResNet reduce a picture by {2 ** (len(config.depths) + 1)}, not by patch "
                f"{config.patch}, and are convolutions; make patch that, or leave depths empty"
            )
        self.config = config
        self.grid = (config.size // config.patch,) * 2
        self.resnet: ResNet | None = None
        self.patches: PatchEmbed | None = None
        if config.depths:
            self.resnet = ResNet(ResNetConfig(block="bottleneck", depths=config.depths))
            self.project = nn.Linear(self.resnet.width, width)
            nn.init.trunc_normal_(self.project.weight, std=0.02)
            nn.init.zeros_(self.project.bias)
        else:
            self.patches = (ConvStem if config.convolve else PatchEmbed)(config.patch, width)
        self.positions = nn.Parameter(torch.empty(self.grid[0] * self.grid[1], width))
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, W), row by row."""
        if self.resnet is None:
            assert self.patches is not None
            return self.patches(images) + resize_positions(self.positions, self.grid, self.patches.grid(images))  # type: ignore[no-any-return]
        features = self.resnet.features(images)
        places = resize_positions(self.positions, self.grid, (features.shape[2], features.shape[3]))
        return self.project(features.flatten(2).transpose(1, 2)) + places  # type: ignore[no-any-return]
