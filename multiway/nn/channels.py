"""Channels of a picture as views of it: luminance, colour, edges, a coarse copy; batched tensor code.

What Y. Tian et al., Contrastive Multiview Coding, 2020, arXiv 1906.05849, contrast with one another: L and ab of CIE Lab (section
4.1); edges and a coarse copy stand in for the further sensors (depth, normals) that its figure 7 adds.

Pictures are (B, 3, H, W) sRGB in [0, 1], not normalised. The channels that come out lie in about [-1, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CHANNELS", "channels", "coarse", "lab", "sobel"]

CHANNELS = {"l": 1, "ab": 2, "sobel": 2, "coarse": 3}
"""The views that there are, and how many channels each has."""

# sRGB's primaries to CIE XYZ (IEC 61966-2-1), and the white point D65 of the 2-degree observer.
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
# Middle and half width of what L, a and b reach over all sRGB colours, as the published code has them.
_MIDDLE = (50.0, (98.233 - 86.183) / 2, (94.478 - 107.857) / 2)
_HALF = (50.0, (98.233 + 86.183) / 2, (94.478 + 107.857) / 2)


def lab(images: Tensor) -> Tensor:
    """CIE 1976 L*a*b*: (B, 3, H, W) in [0, 1] -> (B, 3, H, W) float32, L in [0, 100], a and b within about 108 of 0.

    Values a little outside [0, 1], as resampling leaves them, are clamped.
    """
    colours = images.float().clamp(0.0, 1.0)
    linear = torch.where(colours > 0.04045, ((colours + 0.055) / 1.055).pow(2.4), colours / 12.92)
    matrix = linear.new_tensor(_XYZ) / linear.new_tensor(_WHITE)[:, None]
    with torch.autocast(images.device.type, enabled=False):  # a product, which autocast would round
        xyz = torch.einsum("kc,bchw->bkhw", matrix, linear)
    # Clamped below, so that the gradient of the root that is not taken is no infinity.
    root = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856).pow(1 / 3), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = root.unbind(1)
    return torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], 1)


def sobel(images: Tensor) -> Tensor:
    """How lightness changes to the right and downwards: (B, 3, H, W) in [0, 1] -> (B, 2, H, W), Sobel's filters of L, at the
    border of a picture that repeats its edge. A step from black to white is 1.
    """
    light = F.pad(lab(images)[:, :1] / 100.0, (1, 1, 1, 1), mode="replicate")
    right = light.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4.0
    with torch.autocast(images.device.type, enabled=False):
        return F.conv2d(light, torch.stack([right, right.t()])[:, None])


def coarse(images: Tensor, factor: int = 4) -> Tensor:
    """A copy of a `factor`-th of the resolution, enlarged again: (B, 3, H, W) in [0, 1] -> the same shape, in [-1, 1].

    Raises:
        ValueError: if the factor does not divide the picture.
    """
    if factor < 1 or images.shape[-1] % factor or images.shape[-2] % factor:
        raise ValueError(
            f"pictures of {images.shape[-2]}x{images.shape[-1]} pixels do not divide by {factor}; change the view's size"
        )
    small = F.avg_pool2d(images.float(), factor)
    return 2.0 * F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False) - 1.0


def channels(images: Tensor, names: tuple[str, ...]) -> list[Tensor]:
    """Views by name: (B, 3, H, W) in [0, 1] -> of each (B, `CHANNELS[name]`, H, W) float32.

    Raises:
        ValueError: for a name that is none of `CHANNELS`, with those that are.
    """
    unknown = [name for name in names if name not in CHANNELS]
    if unknown:
        raise ValueError(f"there is no view of a picture called {', '.join(unknown)}; there are: {', '.join(CHANNELS)}")
    found: dict[str, Tensor] = {}
    if "l" in names or "ab" in names:
        middle, half = (images.new_tensor(each).view(1, 3, 1, 1).float() for each in (_MIDDLE, _HALF))
        scaled = (lab(images) - middle) / half
        found |= {"l": scaled[:, :1], "ab": scaled[:, 1:]}
    if "sobel" in names:
        found["sobel"] = sobel(images)
    if "coarse" in names:
        found["coarse"] = coarse(images)
    return [found[name] for name in names]
