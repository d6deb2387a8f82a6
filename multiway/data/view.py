"""From a decoded picture to a square of pixels, as a `ViewSpec` wants it.

Pillow's own resize is used throughout: the antialiasing of tensor resizing differs by about one grey level, which
would break parity with published preprocessing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.batch import ViewSpec

__all__ = ["draw", "draw_batch", "from_squares", "normalise", "on_background"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def on_background(image: Image.Image, grey: int) -> Image.Image:
    """The picture as RGB, its transparent parts shown on an even grey (255 is white)."""
    if image.mode == "RGB":
        return image
    if image.mode in ("RGBA", "LA", "PA") or (image.mode == "P" and "transparency" in image.info):
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (grey, grey, grey, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return image.convert("RGB")


def draw(image: Image.Image, view: ViewSpec, side: int | None = None, exact: bool = True) -> np.ndarray:
    """The picture as a square.

    Args:
        image: any mode and size.
        view: says how a picture that is not square is treated, and with which filter it is resized.
        side: of the result; `view.size` by default.
        exact: False resizes nothing that is cut off afterwards, which rounds a little otherwise; for training only.

    Returns:
        (side, side, 3) uint8.
    """
    side = side or view.size
    image = on_background(image, view.background)
    width, height = image.size
    resample = _FILTERS[view.resample]
    if view.crop == "squash":
        image = image.resize((side, side), resample)
    elif view.crop == "pad":
        scale = side / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = Image.new("RGB", (side, side), (view.background,) * 3)
        canvas.paste(image.resize(inner, resample), ((side - inner[0]) // 2, (side - inner[1]) // 2))
        image = canvas
    else:
        # Shorter side to `side` or more, then the middle: the order and the truncation of CLIP's published preprocessing.
        edge = side if view.shortest is None else round(side * view.shortest / view.size)
        scale = edge / min(width, height)
        inner = (edge, int(height * scale)) if width <= height else (int(width * scale), edge)
        left, top = (inner[0] - side) // 2, (inner[1] - side) // 2
        if exact:
            image = image.resize(inner, resample).crop((left, top, left + side, top + side))
        else:
            across, down = width / inner[0], height / inner[1]
            box = (left * across, top * down, min(width, (left + side) * across), min(height, (top + side) * down))
            image = image.resize((side, side), resample, box)
    return np.asarray(image)


def normalise(pixels: Tensor, view: ViewSpec, out: Tensor | None = None) -> Tensor:
    """Values in [0, 1] to zero mean and unit deviation per channel; (B, 3, H, W) float to the same, in `out` if that is given."""
    mean = torch.tensor(view.mean, device=pixels.device, dtype=pixels.dtype).view(1, 3, 1, 1)
    std = torch.tensor(view.std, device=pixels.device, dtype=pixels.dtype).view(1, 3, 1, 1)
    return torch.sub(pixels, mean, out=out).div_(std)


def draw_batch(images: Sequence[Image.Image], view: ViewSpec) -> Tensor:
    """Pictures ready for an encoder: (B, 3, size, size) float, normalised."""
    if not images:
        return torch.empty(0, 3, view.size, view.size)
    return from_squares(torch.from_numpy(np.stack([draw(image, view) for image in images])), view)


def from_squares(squares: Tensor, view: ViewSpec) -> Tensor:
    """Pictures that `draw` drew, (B, side, side, 3) uint8, as an encoder takes them: (B, 3, side, side) float, normalised."""
    return normalise(squares.permute(0, 3, 1, 2).float().div_(255.0).contiguous(), view)
