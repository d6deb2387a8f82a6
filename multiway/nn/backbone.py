"""What turns a picture into features, by its config: a Vision Transformer or a residual network.

Both are called alike, `tower(images, tokens=...)`, and give a `Tower` (`nn/pool.py`): one vector a picture, `width` wide, and its
tokens. A method on pictures alone takes any of them.
"""

from __future__ import annotations

from dataclasses import replace

from multiway.nn.resnet import ResNet, ResNetConfig
from multiway.nn.vit import VisionConfig, VisionTransformer

__all__ = ["VIT_TINY", "Backbone", "BackboneConfig", "backbone", "resnet", "vit"]

BackboneConfig = VisionConfig | ResNetConfig
Backbone = VisionTransformer | ResNet

VIT_TINY = VisionConfig(size=32, patch=4, width=128, layers=4, heads=2, pool="class")
"""For 32 pixels and a laptop: 0.8 M parameters, 64 patches."""


def backbone(config: BackboneConfig) -> Backbone:
    """Build one, at random."""
    return VisionTransformer(config) if isinstance(config, VisionConfig) else ResNet(config)


def resnet(depth: int, stem: str = "imagenet", base: int = 64) -> ResNetConfig:
    """ResNet-18, -34, -50, -101 or -152 (He et al., 2016, arXiv 1512.03385, table 1).

    Args:
        depth: layers, as the network is called after them.
        stem: `cifar` for small pictures.
        base: channels of the first stage.

    Raises:
        KeyError: for another depth, with those that exist.
    """
    if depth not in _DEPTHS:
        raise KeyError(f"there is no ResNet-{depth}; there are: {', '.join(map(str, _DEPTHS))}")
    kind, depths = _DEPTHS[depth]
    return ResNetConfig(kind, depths, base, "cifar" if stem == "cifar" else "imagenet")  # type: ignore[arg-type]


_DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


def vit(size: str, patch: int = 16, pixels: int = 224, **more: object) -> VisionConfig:
    """ViT-Ti, -S, -B, -L or -H (Touvron et al., 2021, arXiv 2012.12877, table 1; Dosovitskiy et al., 2021, arXiv 2010.11929, table 1).

    Args:
        size: `tiny`, `small`, `base`, `large` or `huge`.
        patch, pixels: sides of a patch and of the picture.
        **more: other fields of `VisionConfig`.

    Raises:
        KeyError: for another size, with those that exist.
    """
    if size not in _WIDTHS:
        raise KeyError(f"there is no ViT of the size {size!r}; there are: {', '.join(_WIDTHS)}")
    width, layers, heads = _WIDTHS[size]
    return replace(VisionConfig(size=pixels, patch=patch, width=width, layers=layers, heads=heads), **more)  # type: ignore[arg-type]


_WIDTHS = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
