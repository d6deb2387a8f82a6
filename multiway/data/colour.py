"""Distortions of colour as batched tensor code: jitter, greyscale, solarisation.

Each row has strengths of its own. The operations are torchvision's, which are Pillow's: brightness, contrast and saturation
blend a picture with black, with its mean grey and with its own greyscale; hue turns the hexagon of colours (HSV). They equal
Pillow's to about a grey level per operation, because nothing is rounded to 256 levels in between.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

__all__ = ["ORDERS", "greyscale", "jitter", "shift_hue", "solarise"]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = tuple(permutations((BRIGHTNESS, CONTRAST, SATURATION, HUE)))
"""The 24 orders in which the four operations of a jitter may come; a row names its own by number."""

_SEQUENCES = torch.tensor(ORDERS)
_HUE_AT = (_SEQUENCES == HUE).int().argmax(1)


def greyscale(images: Tensor) -> Tensor:
    """Luma 0.299 R + 0.587 G + 0.114 B (ITU-R 601, Pillow's mode L): (n, 3, H, W) -> (n, H, W)."""
    red, green, blue = images.unbind(1)
    # One rounding per operation, never a fused one: a row's bits do not depend on where in the batch it stands.
    return (red * 0.299).add_(green * 0.587).add_(blue * 0.114)


def solarise(images: Tensor, threshold: int = 128) -> Tensor:
    """Invert the values from `threshold` of 255 on: (n, 3, H, W) in [0, 1] -> the same (Pillow's `ImageOps.solarize`)."""
    # Half a level lower, so that a value which rounds to the threshold is inverted as it would be in whole levels.
    return torch.where(images >= (threshold - 0.5) / 255.0, 1.0 - images, images)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn every colour by a share of the full circle, at the same saturation and value.

    With h in [0, 6) and span = max - min, a channel is max - span f(h), where f rises from 0 to 1 over one sector, stays and falls
    again: no table of six cases is needed.

    Args:
        images: (n, 3, H, W) in [0, 1].
        shift: (n,) in [-0.5, 0.5].

    Returns:
        (n, 3, H, W) in [0, 1].
    """
    red, green, blue = images.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    span = high - torch.minimum(torch.minimum(red, green), blue)
    # The channel that is greatest says in which two sectors the hue lies. Numbers of 0 and 1, because choosing by `where` takes
    # several times as long on a CPU; grey has no hue, and no span to show it.
    most_red = high.clone().eq_(red)
    most_green = high.clone().eq_(green).mul_(1.0 - most_red)
    most_blue = (1.0 - most_red).sub_(most_green)
    hue = (green - blue).mul_(most_red).add_((blue - red).mul_(most_green)).add_((red - green).mul_(most_blue))
    hue.div_(span.clamp(min=1e-12)).add_(most_green.mul_(2.0)).add_(most_blue.mul_(4.0))
    hue.add_((6.0 * shift)[:, None, None])
    hue.sub_((hue / 6.0).floor_().mul_(6.0))
    turned = torch.empty_like(images)
    for channel, low in enumerate((_near(hue, 3.0).neg_().add_(1.0), _near(hue, 2.0), _near(hue, 4.0))):
        torch.sub(high, low.mul_(span), out=turned[:, channel])
    return turned


def _near(hue: Tensor, centre: float) -> Tensor:
    """0 within one sector of a hue, 1 beyond two, and a slope between."""
    return (hue - centre).abs_().sub_(1.0).clamp_(0.0, 1.0)


def jitter(images: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in an order of each row's own (torchvision's `ColorJitter`).

    Rows are sorted by when their hue comes, so that the blends before it, the hue of all, and the blends after it each act on
    one slice of the batch: seven passes, in which every row takes part in its own four operations and no other.

    Args:
        images: (n, 3, H, W) in [0, 1].
        order: (n,) int64 on the CPU, number in `ORDERS`.
        factors: (4, n) on the CPU: factors of brightness, contrast and saturation, and the shift of hue as a share of the circle.

    Returns:
        (n, 3, H, W) in [0, 1].
    """
    at, sorted_rows = _HUE_AT[order].sort(stable=True)
    sequences, factors = _SEQUENCES[order][sorted_rows], factors[:, sorted_rows].to(images.dtype)
    place = sorted_rows.to(images.device)
    work = images.index_select(0, place)
    for slot in (1, 2, 3):
        first = int((at < slot).sum())
        _blend(work[first:], sequences[first:, slot - 1], factors[:, first:])
    if bool((factors[HUE] != 0).any()):
        work = shift_hue(work, factors[HUE].to(images.device))
    for slot in (1, 2, 3):
        stop = int((at <= 3 - slot).sum())
        _blend(work[:stop], sequences[torch.arange(stop), at[:stop] + slot], factors[:, :stop])
    return torch.empty_like(images).index_copy_(0, place, work)


def _blend(images: Tensor, operation: Tensor, factors: Tensor) -> None:
    """One operation per row that is not hue, in place: f x + (1 - f) t, where t is black, the mean grey or the greyscale."""
    if len(images) == 0:
        return
    factor = factors.gather(0, operation[None])[0]
    rest = 1.0 - factor
    zero = torch.zeros_like(rest)
    of_mean, of_grey = torch.where(operation == CONTRAST, rest, zero), torch.where(operation == SATURATION, rest, zero)
    factor, of_mean, of_grey = (each.to(images.device)[:, None, None] for each in (factor, of_mean, of_grey))
    grey = greyscale(images)
    # Along rows and then along their sums: a sum over all pixels at once is split among threads where it stands alone.
    mean = grey.sum(-1).sum(-1)[:, None, None] / grey[0].numel()
    grey.mul_(of_grey).add_(mean.mul_(of_mean))
    images.mul_(factor[:, None]).add_(grey[:, None]).clamp_(0.0, 1.0)
