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
from multiway.data.randaugment import DRAWS_PER_OPERATION, randaugment
from multiway.data.rectangles import rectangles
from multiway.data.view import normalise
from multiway.data.views import PER_VIEW, ViewsSpec, draw_views

__all__ = ["DRAWS", "affine", "augment", "crop", "finish", "resized_crop"]

# How many uniform numbers each augmentation needs per row; RandAugment's N = 2 operations follow the crop, and a flip.
DRAWS = {
    "none": 0,
    "crop": 3,
    "affine": 5,
    "resized_crop": 4,
    "randaugment": 4 + 1 + 2 * DRAWS_PER_OPERATION,
    "randaugment_unflipped": 4 + 2 * DRAWS_PER_OPERATION,
}


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


def resized_crop(
    images: Tensor, draws: Tensor, size: int, scale: tuple[float, float] = (0.2, 1.0), aspect: float = 4.0 / 3.0
) -> Tensor:
    """A random rectangle, stretched to the square (Szegedy et al. 2015, arXiv 1409.4842, section 6; ALBEF's code: 0.2 to 1).

    Where it lies, `rectangles` says.

    Args:
        images: (B, C, H, W) in [0, 1], square.
        draws: (B, 4) or (B, 5) in [0, 1): area, aspect ratio, horizontal and vertical position; and, if there is a fifth,
            below 1/2 the row is mirrored, left to right.
        size: side of the result in pixels.
        scale: the rectangle's area lies between these shares of the picture's.
        aspect: the rectangle's width over its height lies in [1 / aspect, aspect], log-uniformly.

    Returns:
        (B, C, size, size).
    """
    width, height, x, y = rectangles(draws, scale, aspect)
    if draws.shape[1] > 4:  # mirroring is a negative width: no pass of its own
        width = torch.where(draws[:, 4] < 0.5, -width, width)
    return _sample(images, size, width, height, x, y)


def augment(images: Tensor, draws: Tensor, view: ViewSpec) -> Tensor:
    """The augmentation that a view names.

    Args:
        images: (B, 3, H, W) in [0, 1].
        draws: (B, K) in [0, 1), K = `DRAWS[view.augment]`.

    Returns:
        (B, 3, size, size) in [0, 1].

    Raises:
        ValueError: if the number of draws is another.
    """
    kind, size = view.augment, view.size
    if draws.shape[1] != DRAWS[kind]:
        raise ValueError(
            f"augmentation {kind!r} takes {DRAWS[kind]} draws a row; the batch has {draws.shape[1]}: it was drawn for another view"
        )
    if kind == "none":
        return images
    if kind == "crop":
        return crop(images, draws, size)
    if kind == "affine":
        return affine(images, draws, size)
    own = DRAWS["resized_crop"] + (kind == "randaugment")  # the fifth mirrors
    images = resized_crop(images, draws[:, :own], size)
    return images if kind == "resized_crop" else randaugment(images, draws[:, own:])


def _sample(
    images: Tensor, size: int, width: Tensor, height: Tensor, x: Tensor, y: Tensor, turn: Tensor | None = None
) -> Tensor:
    """Resample rectangles; `width`, `height` and centres `x`, `y` in units of half the picture, `turn` in radians."""
    cos, sin = (torch.ones_like(x), torch.zeros_like(x)) if turn is None else (turn.cos(), turn.sin())
    rows = [torch.stack([width * cos, -height * sin, x], -1), torch.stack([width * sin, height * cos, y], -1)]
    grid = F.affine_grid(torch.stack(rows, 1), [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


@torch.no_grad()
def finish(batch: Batch, view: ViewSpec, views: ViewsSpec | None = None) -> Batch:
    """What the device does to a batch before the method sees it: to float, augment, normalise.

    Args:
        batch: with uint8 images, and `draws` where the view augments.
        view: the method's.
        views: the kinds of views a method learns from, where it learns from several.

    Returns:
        The batch with (B, 3, size, size) float images; with `views`, `Batch.views` is filled, and `images` is None unless
        `views.plain`.

    Raises:
        ValueError: if the batch was drawn for other views.
    """
    if batch.images is None or batch.images.dtype != torch.uint8:
        return batch
    own = DRAWS[view.augment] if views is None or views.plain else 0
    if views is not None:
        if batch.draws is None or batch.draws.shape[1] != own + views.draws:
            given = "none" if batch.draws is None else batch.draws.shape[1]
            raise ValueError(
                f"{len(views.views)} views take {own + views.draws} draws a row, {own} of them for `images` and {PER_VIEW} for "
                f"each view; the batch has {given}: give its Loader the same view and views"
            )
        drawn = draw_views(batch.images, batch.draws[:, own:], views, view)
        if not views.plain:
            return replace(batch, images=None, views=drawn)
        # From here on as if there were no views.
        alone = replace(batch, images=_reduced(batch.images, view), draws=batch.draws[:, :own])
        return replace(finish(alone, view), draws=batch.draws, views=drawn)
    pixels = batch.images.float().div_(255.0)
    if view.augment != "none" and batch.draws is not None:
        pixels = augment(pixels, batch.draws.to(pixels.dtype), view)
    return replace(batch, images=normalise(pixels, view))


def _reduced(squares: Tensor, view: ViewSpec) -> Tensor:
    """(B, 3, S, S) uint8 squares that were kept larger for the sake of views, at the size of a picture that nothing crops."""
    if view.augment != "none" or squares.shape[-1] == view.size:
        return squares
    # To whole levels, as Pillow has them.
    pixels = F.interpolate(squares.float(), (view.size, view.size), mode="bicubic", antialias=True)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)
