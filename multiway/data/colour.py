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
    # |1 - x| where x is inverted and |0 - x| elsewhere: `where` takes forty times as long as a pass on a CPU. Half a level
    # lower, so that a value which rounds to the threshold is inverted as it would be in whole levels.
    return images.clone().ge_((threshold - 0.5) / 255.0).sub_(images).abs_()


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn every colour by a share of the full circle, at the same saturation and value.

    With h in [0, 6) and span = max - min, a channel is max - span f(h), where f rises from 0 to 1 over one sector, stays and falls
    again: no table of six cases is needed. None is needed for h either. Sector by sector, with f = (max - channel) / span,

        |h - 3| = 1 - f_red + f_green + f_blue = 1 + (max + red - green - blue) / span,

    and h is beyond cyan, at 3, where blue is more than green.

    Args:
        images: (n, 3, H, W) in [0, 1].
        shift: (n,) in [-0.5, 0.5].

    Returns:
        (n, 3, H, W) in [0, 1].
    """
    red, green, blue = images.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    span = torch.minimum(torch.minimum(red, green), blue).sub_(high).neg_()
    # Grey has no hue, and no span to show it.
    away = (red - green).sub_(blue).add_(high).div_(span.clamp(min=1e-12)).add_(1.0)
    # In turns from here on. Numbers for the two sides, because choosing by `where` takes many times as long on a CPU.
    side = (blue - green).ge_(0.0).mul_(1.0 / 3.0).sub_(1.0 / 6.0)
    hue = away.mul_(side).add_((0.5 + shift)[:, None, None])
    hue.sub_(hue.floor())
    turned = torch.empty_like(images)
    full, slope = high + span, span * 6.0
    for channel, centre in enumerate((0.5, 1.0 / 3.0, 2.0 / 3.0)):
        near = (hue - centre).abs_().clamp_(1.0 / 6.0, 1.0 / 3.0).mul_(slope)
        if channel == 0:  # falls where the others rise
            torch.add(high - 2.0 * span, near, out=turned[:, channel])
        else:
            torch.sub(full, near, out=turned[:, channel])
    return turned.clamp_(0.0, 1.0)


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
    sequences, factors = _SEQUENCES[order][sorted_rows].T, factors[:, sorted_rows].to(images.dtype)
    place = sorted_rows.to(images.device)
    work = images.index_select(0, place)
    # Each operation as what it makes of a pixel, of its picture's mean and of its own grey, in the row's order. Rows [0, later[k])
    # have their hue at k or before.
    factor = factors.gather(0, sequences)
    rest = 1.0 - factor
    tables = torch.stack([factor, rest * (sequences == CONTRAST), rest * (sequences == SATURATION)])
    later = torch.bincount(at, minlength=4).cumsum(0).tolist()
    for slot in (0, 1, 2):
        _blend(work[later[slot] :], tables[:, slot, later[slot] :])
    if bool(factors[HUE].any()):
        work = shift_hue(work, factors[HUE].to(images.device))
    after = (at + torch.arange(1, 4)[:, None]).clamp_(max=3).expand(3, 3, -1)
    tables = tables.gather(1, after)
    for slot in (0, 1, 2):
        stop = later[2 - slot]
        _blend(work[:stop], tables[:, slot, :stop])
    return work if len(work) == 1 else torch.empty_like(images).index_copy_(0, place, work)


def _blend(images: Tensor, table: Tensor) -> None:
    """One operation per row that is not hue, in place: f x + a m + b g, with (3, n) factors of x, the mean grey m and the greyscale g.

    What no row asks for is left out; adding nothing of it would give the same bits.
    """
    if len(images) == 0:
        return
    asks_mean, asks_grey = table[1:].any(1).tolist()
    factor, of_mean, of_grey = table.to(images.device)[..., None, None].unbind()
    factor = factor[:, None]
    if not (asks_mean or asks_grey):
        images.mul_(factor).clamp_(0.0, 1.0)
        return
    grey = greyscale(images)
    if asks_mean:
        # Along rows and then along their sums: a sum over all pixels at once is split among threads where it stands alone.
        mean = (grey.sum(-1).sum(-1)[:, None, None] / grey[0].numel()).mul_(of_mean)
        grey = grey.mul_(of_grey).add_(mean) if asks_grey else mean
    else:
        grey.mul_(of_grey)
    images.mul_(factor).add_(grey[:, None]).clamp_(0.0, 1.0)
