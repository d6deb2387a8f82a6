"""Training augmentation as batched tensor code on the training device.

Per-image augmentation on CPU workers is the usual bottleneck of small-picture training; one `grid_sample` over the
batch does the same on whatever device trains. The random numbers come with the batch (`Batch.draws`), so that this
file is deterministic: same batch, same pixels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.batch import Batch, ViewSpec
from multiway.data.view import normalise

__all__ = ["DRAWS", "affine", "crop", "finish"]

# How many uniform numbers each augmentation needs per row.
DRAWS = {"none": 0, "crop": 3, "affine": 5}


def crop(images: Tensor, draws: Tensor, size: int, smallest: float = 0.8) -> Tensor:
    """A random square, enlarged or reduced to `size`: CLIP's only augmentation (Radford et al. 2021, section 2.3).

    Args:
        images: (B, C, H, W) in [0, 1].
        draws: (B, 3) in [0, 1): side, horizontal and vertical position.
        size: side of the result in pixels.
        smallest: least side of the square as a share of the picture's.

    Returns:
        (B, C, size, size).
    """
    side = smallest + (1.0 - smallest) * draws[:, 0]
    free = 1.0 - side
    return _sample(images, size, side, side, free * (2 * draws[:, 1] - 1), free * (2 * draws[:, 2] - 1))


def affine(
    images: Tensor, draws: Tensor, size: int, zoom: float = 0.2, angle: float = 10.0, aspect: float = 0.1
) -> Tensor:
    """A random crop that also turns and stretches the picture a little; what leaves the frame repeats its edge.

    Args:
        images: (B, C, H, W) in [0, 1].
        draws: (B, 5) in [0, 1): side, horizontal and vertical position, angle, aspect ratio.
        size: side of the result in pixels.
        zoom: the crop's side lies in [1 - zoom, 1 + zoom / 4] of the picture's.
        angle: greatest turn either way, in degrees.
        aspect: greatest relative change of the aspect ratio either way.

    Returns:
        (B, C, size, size).
    """
    side = 1.0 - zoom + 1.25 * zoom * draws[:, 0]
    stretch = (1.0 + aspect) ** (2 * draws[:, 4] - 1)
    width, height = side * stretch, side / stretch
    shift_x = (1.0 - width).abs() * (2 * draws[:, 1] - 1)
    shift_y = (1.0 - height).abs() * (2 * draws[:, 2] - 1)
    turn = math.radians(angle) * (2 * draws[:, 3] - 1)
    return _sample(images, size, width, height, shift_x, shift_y, turn)


def _sample(
    images: Tensor, size: int, width: Tensor, height: Tensor, x: Tensor, y: Tensor, turn: Tensor | None = None
) -> Tensor:
    """Resample rectangles; `width`, `height` and centres `x`, `y` in units of half the picture, `turn` in radians."""
    cos, sin = (torch.ones_like(x), torch.zeros_like(x)) if turn is None else (turn.cos(), turn.sin())
    rows = [torch.stack([width * cos, -height * sin, x], -1), torch.stack([width * sin, height * cos, y], -1)]
    grid = F.affine_grid(torch.stack(rows, 1), [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def finish(batch: Batch, view: ViewSpec) -> Batch:
    """What the device does to a batch before the method sees it: to float, augment, normalise.

    Args:
        batch: with uint8 images, and `draws` where the view augments.
        view: the method's.

    Returns:
        The batch with (B, 3, size, size) float images.
    """
    if batch.images is None or batch.images.dtype != torch.uint8:
        return batch
    pixels = batch.images.float().div_(255.0)
    if view.augment != "none" and batch.draws is not None:
        draws = batch.draws.to(pixels.dtype)
        pixels = (crop if view.augment == "crop" else affine)(pixels, draws, view.size)
    return replace(batch, images=normalise(pixels, view))
