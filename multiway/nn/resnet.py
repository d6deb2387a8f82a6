"""Residual networks: the plain one (He et al., 2016, arXiv:1512.03385) and CLIP's (Radford et al., 2021,
arXiv:2103.00020, section 2.4: the "-D" stem and shortcuts of arXiv:1812.01187, anti-aliased strides of
arXiv:1904.11486, attention pooling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from multiway.nn.attention import Attention
from multiway.nn.patch import resize_positions
from multiway.nn.pool import Tower

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "GridPool",
    "ModifiedResNet",
    "ModifiedResNetConfig",
    "Projection",
    "ResNet",
    "ResNetConfig",
]


@dataclass(frozen=True)
class ResNetConfig:
    """A plain ResNet. ResNet-18 is the default; ResNet-50 is `block="bottleneck", depths=(3, 4, 6, 3)`.

    Attributes:
        block: two 3x3 convolutions (`basic`), or 1x1, 3x3, 1x1 (`bottleneck`, four times as wide outside).
        depths: blocks per stage; every stage after the first halves the picture.
        base: channels of the first stage; each next has twice as many.
        stem: `imagenet` reduces the picture by 4 at once; `cifar` keeps it, for small pictures.
    """

    block: Literal["basic", "bottleneck"] = "basic"
    depths: tuple[int, ...] = (2, 2, 2, 2)
    base: int = 64
    stem: Literal["imagenet", "cifar"] = "imagenet"


@dataclass(frozen=True)
class ModifiedResNetConfig:
    """CLIP's ResNet. The default is RN50's visual tower.

    Attributes:
        size: side, in pixels, of the pictures whose grid has positions of its own; other sizes interpolate them.
        depths: blocks per stage.
        base: channels of the first stage; the last feature map has 32 times as many.
        heads: of the attention pool.
        output: width of the pooled vector; CLIP pools straight into its shared space.
    """

    size: int = 224
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    base: int = 64
    heads: int = 32
    output: int = 1024


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (up to its stride); no bias, as a batch norm follows."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Projection(nn.Conv2d):
    """A 1x1 convolution with a stride, for shortcuts.

    With fewer than 16 channels every `stride`-th pixel of rows and columns is taken first, and the convolution has no stride: the same
    numbers. torch 2.13's strided one, on a CPU with maps channels last, writes beyond its memory in the backward pass there, and ends
    the process. With 16 or more (tried to pictures of 320 pixels) it does not, and saves the zeros that picking pixels has to fill.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        picked = stride if inputs < 16 else 1
        super().__init__(inputs, outputs, 1, stride // picked, bias=False)
        self.picked = picked

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        if self.picked > 1:
            input = _channels_last(input[:, :, :: self.picked, :: self.picked])
        return super().forward(input)


def _blur(stride: int) -> nn.Module:
    """The mean over stride x stride pixels, which halves the map without skipping any (arXiv:1904.11486)."""
    return nn.AvgPool2d(stride) if stride > 1 else nn.Identity()


def _shortcut(inputs: int, outputs: int, stride: int, antialias: bool) -> nn.Module:
    """The identity where shapes allow it, else a 1x1 convolution (option B of arXiv:1512.03385, section 3.3)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if not antialias:
        return nn.Sequential(Projection(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    return nn.Sequential(_blur(stride), _conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (arXiv:1512.03385, figure 2)."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int = 1, antialias: bool = False) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, channels, 3, 1 if antialias else stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.blur = _blur(stride if antialias else 1)
        self.conv2 = _conv(channels, channels, 3)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = _shortcut(inputs, channels, stride, antialias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, channels, H / stride, W / stride)."""
        y = self.blur(torch.relu_(self.norm1(self.conv1(x))))
        return torch.relu_(self.norm2(self.conv2(y)).add_(self.shortcut(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (arXiv:1512.03385, figure 5).

    The stride is on the 3x3 convolution, as in every published set of weights since torchvision's; with `antialias`
    all convolutions have stride 1 and an average pool follows the second.
    """

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int = 1, antialias: bool = False) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = _conv(inputs, channels, 1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, 1 if antialias else stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.blur = _blur(stride if antialias else 1)
        self.conv3 = _conv(channels, outputs, 1)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride, antialias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 x channels, H / stride, W / stride)."""
        y = torch.relu_(self.norm1(self.conv1(x)))
        y = self.blur(torch.relu_(self.norm2(self.conv2(y))))
        return torch.relu_(self.norm3(self.conv3(y)).add_(self.shortcut(x)))


def _stages(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, base: int, depths: tuple[int, ...], antialias: bool
) -> tuple[nn.Sequential, int]:
    """The stages one after another, and the channels that leave them."""
    stages = []
    for stage, depth in enumerate(depths):
        channels = base * 2**stage
        blocks: list[nn.Module] = []
        for index in range(depth):
            blocks.append(block(inputs, channels, 2 if stage and not index else 1, antialias))
            inputs = channels * block.expansion
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(*stages), inputs


def _channels_last(images: Tensor) -> Tensor:
    """The memory layout that convolutions are fastest in: 1.1 (bf16) to 1.3 (fp32) times, on a CPU."""
    return images.contiguous(memory_format=torch.channels_last)


def _as_tokens(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h x w, C)."""
    return features.flatten(2).transpose(1, 2)


def _init_convolutions(module: nn.Module) -> None:
    """He et al., 2015, arXiv:1502.01852; and each block starts as its shortcut (Goyal et al., 2017,
    arXiv:1706.02677, section 5.1).
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(part, BasicBlock):
            nn.init.zeros_(part.norm2.weight)
        if isinstance(part, Bottleneck):
            nn.init.zeros_(part.norm3.weight)


class ResNet(nn.Module):
    """The plain network.

    Attributes:
        width: channels of the last feature map, which is the width of `pooled` and `tokens`.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        base = config.base
        self.stem = nn.Sequential(
            nn.Conv2d(3, base, 7, 2, 3, bias=False) if config.stem == "imagenet" else _conv(3, base, 3),
            nn.BatchNorm2d(base),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1) if config.stem == "imagenet" else nn.Identity(),
        )
        block = BasicBlock if config.block == "basic" else Bottleneck
        self.stages, self.width = _stages(block, base, base, config.depths, antialias=False)
        self.token_width = self.width
        _init_convolutions(self)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the last feature map (B, width, h, w)."""
        return self.stages(self.stem(_channels_last(images)))

    def forward(self, images: Tensor, *, tokens: bool = True) -> Tower:
        """(B, 3, H, W) -> the feature map's mean (B, width), and the map as tokens (B, h x w, width).

        The tokens cost nothing here, so `tokens`, which transformers obey, changes nothing.
        """
        places = _as_tokens(self.features(images))
        return Tower(places.mean(1), places)


class GridPool(nn.Module):
    """CLIP's attention pool: the mean of the feature map asks, and attends to itself and every place of the map.

    Args:
        grid: (rows, columns) that have positions of their own; other maps interpolate them.
        width: channels of the map.
        heads: of the attention.
        output: width of the result.
    """

    def __init__(self, grid: tuple[int, int], width: int, heads: int, output: int) -> None:
        super().__init__()
        self.grid = grid
        self.mean_position = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(grid[0] * grid[1], width) * width**-0.5)
        self.attention = Attention(width, heads, memory_width=width, output_width=output)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, output)."""
        tokens = _as_tokens(features)
        places = resize_positions(self.positions, self.grid, (features.shape[2], features.shape[3]))
        mean = tokens.mean(1, keepdim=True) + self.mean_position
        return self.attention(mean, torch.cat([mean, tokens + places], 1))[:, 0]


class ModifiedResNet(nn.Module):
    """CLIP's network: three convolutions as stem, anti-aliased strides, attention pool.

    Attributes:
        width: of `pooled`.
        token_width: of `tokens`, the places of the last feature map.

    Raises:
        ValueError: if the size is no multiple of 32, by which the network reduces it.
    """

    def __init__(self, config: ModifiedResNetConfig) -> None:
        super().__init__()
        if config.size % 32:
            raise ValueError(f"size {config.size} is no multiple of 32, by which CLIP's ResNet reduces; choose one")
        self.config = config
        self.width = config.output
        base, half = config.base, config.base // 2
        self.stem = nn.Sequential(
            *(_conv(3, half, 3, 2), nn.BatchNorm2d(half), nn.ReLU()),
            *(_conv(half, half, 3), nn.BatchNorm2d(half), nn.ReLU()),
            *(_conv(half, base, 3), nn.BatchNorm2d(base), nn.ReLU()),
            nn.AvgPool2d(2),
        )
        self.stages, self.token_width = _stages(Bottleneck, base, base, config.depths, antialias=True)
        _init_convolutions(self)
        self.pool = GridPool((config.size // 32,) * 2, self.token_width, config.heads, config.output)
        for part in (self.pool.attention.query, self.pool.attention.key_value, self.pool.attention.out):
            nn.init.normal_(part.weight, std=self.token_width**-0.5)
            nn.init.zeros_(part.bias)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the last feature map (B, token_width, H / 32, W / 32)."""
        return self.stages(self.stem(_channels_last(images)))

    def forward(self, images: Tensor, *, tokens: bool = True) -> Tower:
        """(B, 3, H, W) -> pooled (B, width) and tokens (B, H W / 32^2, token_width), which cost nothing."""
        features = self.features(images)
        return Tower(self.pool(features), _as_tokens(features))
