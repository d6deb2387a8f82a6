"""RandAugment without operations on colour, as batched tensor code.

Cubuk, Zoph, Shlens, Le, 2020, arXiv 1909.13719: N operations drawn from a list, all at one magnitude M of 10. Captions name
colours, so Li et al. (ALBEF, 2021, arXiv 2107.07651, section 3.6) leave out what changes them. List, magnitudes and fill are
those of ALBEF's released code: N = 2, M = 7, each drawn operation is applied with probability 1/2, and at that magnitude
brightness and sharpness only go up. Each operation equals Pillow's to about a grey level (sharpness: one and a half).

Autocontrast and equalisation treat each channel by itself and so can still turn a hue; they are on the published list.

Operations that move pixels are not harmless either: a translation or a shear can push an object out of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["DRAWS_PER_OPERATION", "GEOMETRIC", "OPERATIONS", "TONAL", "randaugment"]

DRAWS_PER_OPERATION = 3  # which, whether, which way
FILL = 128.0 / 255.0  # what comes into the picture from outside
APPLIED = 0.5
TOP = 10.0  # the greatest magnitude

Signs = Tensor  # (n,) of -1 and 1


# Operations on tone: (n, C, S, S) in [0, 1] -> the same, at a magnitude in [0, 10].


def autocontrast(images: Tensor, magnitude: float) -> Tensor:
    """Stretch each channel to the whole range of values; an even channel stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    even = high <= low
    return torch.where(even, images, (images - low) / torch.where(even, 1.0, high - low))


def equalize(images: Tensor, magnitude: float) -> Tensor:
    """Make the histogram of each channel even, by the table that Pillow computes; values are rounded to 256 levels."""
    rows, channels, height, width = images.shape
    levels = (images * 255.0).round_().clamp_(0, 255).to(torch.int64).reshape(rows * channels, -1)
    histogram = torch.zeros(rows * channels, 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(1, levels, torch.ones_like(levels))
    # Pixels of the brightest level do not count towards the step, so that it is mapped to white.
    brightest = histogram.gather(1, levels.amax(1, keepdim=True))
    step = (height * width - brightest) // 255
    below = histogram.cumsum(1) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.gather(1, levels).view(images.shape).to(images.dtype) / 255.0


def _enhancement(magnitude: float) -> float:
    return 0.1 + 1.8 * magnitude / TOP


def brightness(images: Tensor, magnitude: float) -> Tensor:
    """Away from black, by a factor of 0.1 at magnitude 0 and 1.9 at 10."""
    return (images * _enhancement(magnitude)).clamp_(0.0, 1.0)


def sharpness(images: Tensor, magnitude: float) -> Tensor:
    """Away from the picture smoothed by (1 1 1; 1 5 1; 1 1 1) / 13, by the same factor; its edge is not smoothed."""
    middle = images[:, :, 1:-1, 1:-1]
    smooth = (9.0 * F.avg_pool2d(images, 3, stride=1) + 4.0 * middle) / 13.0
    sharp = images.clone()
    sharp[:, :, 1:-1, 1:-1] = torch.lerp(smooth, middle, _enhancement(magnitude)).clamp_(0.0, 1.0)
    return sharp


# Operations that move pixels: signs (n,) -> (n, 2, 3), from places in the result to places in the picture, both in
# [-1, 1] from edge to edge. Shears hold the top left corner, as the published ones do.


def _matrix(signs: Signs, *entries: Tensor | float) -> Tensor:
    return torch.stack([signs * 0 + entry for entry in entries], 1).view(-1, 2, 3)


def shear_x(signs: Signs, magnitude: float) -> Tensor:
    """Rows slide sideways, by up to 0.3 of their distance from the top."""
    slant = signs * (0.3 * magnitude / TOP)
    return _matrix(signs, 1.0, slant, slant, 0.0, 1.0, 0.0)


def shear_y(signs: Signs, magnitude: float) -> Tensor:
    """Columns slide up or down, by up to 0.3 of their distance from the left."""
    slant = signs * (0.3 * magnitude / TOP)
    return _matrix(signs, 1.0, 0.0, 0.0, slant, 1.0, slant)


# The released code moves by up to 10 pixels at 256; here it is a share of the side, whatever the size.
_REACH = 2.0 * 10.0 / 256.0


def translate_x(signs: Signs, magnitude: float) -> Tensor:
    """Sideways, by up to 10/256 of the side."""
    return _matrix(signs, 1.0, 0.0, signs * (_REACH * magnitude / TOP), 0.0, 1.0, 0.0)


def translate_y(signs: Signs, magnitude: float) -> Tensor:
    """Up or down, by up to 10/256 of the side."""
    return _matrix(signs, 1.0, 0.0, 0.0, 0.0, 1.0, signs * (_REACH * magnitude / TOP))


def rotate(signs: Signs, magnitude: float) -> Tensor:
    """About the middle, by up to 30 degrees; positive signs turn counter-clockwise."""
    turn = signs * math.radians(30.0 * magnitude / TOP)
    return _matrix(signs, turn.cos(), -turn.sin(), 0.0, turn.sin(), turn.cos(), 0.0)


TONAL: dict[str, Callable[[Tensor, float], Tensor]] = {
    "autocontrast": autocontrast,
    "equalize": equalize,
    "brightness": brightness,
    "sharpness": sharpness,
}
GEOMETRIC: dict[str, Callable[[Signs, float], Tensor]] = {
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "rotate": rotate,
}
OPERATIONS = ("identity", *TONAL, *GEOMETRIC)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample bilinearly; what comes from outside the picture is grey.

    Args:
        images: (n, C, S, S) in [0, 1].
        matrices: (n, 2, 3) as the geometric operations give them.
    """
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    outside = (grid.abs() > 1.0).any(-1)[:, None]
    return moved.masked_fill_(outside, FILL)


def randaugment(images: Tensor, draws: Tensor, magnitude: float = 7.0) -> Tensor:
    """N operations on each picture, one after another.

    Args:
        images: (B, C, S, S) in [0, 1]; left as they are.
        draws: (B, 3 N) in [0, 1): for each of the N operations which one, whether it is applied, and which way.
        magnitude: M, of 10.

    Returns:
        (B, C, S, S) in [0, 1].

    Raises:
        ValueError: if the number of draws is not a multiple of 3.
    """
    rows, count = draws.shape
    if count % DRAWS_PER_OPERATION:
        raise ValueError(f"{count} draws a row; RandAugment needs {DRAWS_PER_OPERATION} for each of its operations")
    images = images.clone()
    # Decided on the CPU: which rows an operation takes is needed there, and asking ten times would wait ten times.
    decisions = draws.cpu().view(rows, -1, DRAWS_PER_OPERATION)
    for which, whether, way in decisions.permute(1, 2, 0):
        chosen = torch.where(whether < APPLIED, (which * len(OPERATIONS)).long(), 0)
        signs = torch.where(way < 0.5, -1.0, 1.0).to(images.dtype)
        moved, matrices = [], []
        for number, name in enumerate(OPERATIONS):
            taken = (chosen == number).nonzero()[:, 0]
            if name == "identity" or len(taken) == 0:
                continue
            if name in GEOMETRIC:
                moved.append(taken)
                matrices.append(GEOMETRIC[name](signs[taken], magnitude))
            else:
                place = taken.to(images.device)
                images[place] = TONAL[name](images[place], magnitude)
        if moved:  # all of them in one pass
            place = torch.cat(moved).to(images.device)
            images[place] = warp(images[place], torch.cat(matrices).to(images.device))
    return images
