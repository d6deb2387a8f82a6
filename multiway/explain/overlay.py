"""A map over its picture, red for much and blue below zero: what every figure of the command line, the API and the page is drawn with."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from multiway.explain.kinds import KINDS

__all__ = ["drawn_part", "with_heat"]

_RED, _BLUE = (220.0, 30.0, 20.0), (37.0, 99.0, 235.0)


def drawn_part(kind: str, heat: Tensor) -> Tensor:
    """What of a map is drawn: of attention, transport and cosines what exceeds its median, which an uninteresting patch gets too.

    Args:
        kind: its name.
        heat: (rows, columns).

    Returns:
        (rows, columns).
    """
    return (heat - heat.median()).clamp(min=0) if KINDS[kind].spreads else heat


def with_heat(square: Image.Image, heat: np.ndarray) -> np.ndarray:
    """A picture in grey with a map over it: strongest at its greatest value, blue below zero on the same scale.

    Nothing is taken off the map: what is shown here is zero where there is nothing to show (see `drawn_part`).

    Args:
        square: of any size.
        heat: (rows, columns).

    Returns:
        (H, W, 3) uint8.
    """
    greatest = float(np.abs(heat).max())
    strength = Image.fromarray((heat / greatest if greatest > 0 else heat * 0.0).astype(np.float32))
    signed = np.asarray(strength.resize(square.size, Image.Resampling.BILINEAR)).clip(-1, 1)[:, :, None]
    share = np.abs(signed) * 0.85
    pixels = np.asarray(square.convert("RGB")).astype(np.float32)
    grey = pixels.mean(2, keepdims=True) * 0.55 + 0.45 * 0.9 * 255
    colour = np.where(signed < 0, np.array(_BLUE), np.array(_RED)).astype(np.float32)
    return (grey * (1 - share) + colour * share).clip(0, 255).astype(np.uint8)
