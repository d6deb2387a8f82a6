"""Occlusion: what of a picture a score needs, by covering it piece by piece.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014, arXiv 1311.2901, section 4.2: a square of one colour
is moved over the picture, and the map is by how much the score falls. It asks nothing of the model but the score, so it is
the one map that every model has, and the one that holds others to account; it costs as many passes as there are places.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.config import ConfigError
from multiway.explain.pairs import Found, Look, Pairs
from multiway.explain.scores import score_of

__all__ = ["occlude", "occlusion", "starts_of", "window_of"]

_COLOURS = {"black": (0.0, 0.0, 0.0), "grey": (0.5, 0.5, 0.5), "white": (1.0, 1.0, 1.0)}


def starts_of(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin, so that they cover the whole side: the last one ends with it."""
    if not 0 < window <= side or not 0 < stride <= window:
        raise ConfigError(
            f"window {window} and stride {stride} on {side} pixels; expected a window of 1 to {side}, and a stride of 1 to the "
            "window, or parts of the picture would never be covered"
        )
    return list(dict.fromkeys([*range(0, side - window, stride), side - window]))


def window_of(side: int, look: Look) -> tuple[int, int]:
    """Window and stride in pixels of a square of `side`: those that were asked for, or a quarter of the side, and half of the window."""
    window = look.window or max(1, side // 4)
    return window, look.stride or max(1, window // 2)


def occlude(
    score: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    baseline: Tensor,
    window: int,
    stride: int,
    batch: int = 64,
) -> tuple[Tensor, Tensor]:
    """Cover pictures piece by piece.

    Args:
        score: of (n, 3, S, S) pictures and (n,) which row each is a copy of: (n,) values.
        images: (B, 3, S, S), square.
        baseline: what is put over each, in the units of the pictures: a colour (B, 3), or a picture (B, 3, S, S) whose part shows in
            the window.
        window, stride: in pixels.
        batch: covered pictures at a time.

    Returns:
        (B, g, g) by how much the score falls where a cell is covered, mean over the windows that cover it, and (B,) the scores of the
        pictures as they are. Cells are of the largest side that all windows are made of: the window's own where they do not overlap.

    Raises:
        ConfigError: for a window or a stride that does not cover the picture.
    """
    rows, _, side, _ = images.shape
    over = (baseline[:, :, None, None] if baseline.ndim == 2 else baseline).expand(-1, -1, side, side)
    starts = starts_of(side, window, stride)
    cell = math.gcd(side, window, *starts)
    places = [(row, top, left) for row in range(rows) for top in starts for left in starts]
    whole = score(images, torch.arange(rows, device=images.device)).float()
    total = torch.zeros(rows, side // cell, side // cell, device=images.device)
    times = torch.zeros_like(total[0])
    wide = window // cell
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        index = torch.tensor([row for row, _, _ in some], device=images.device)
        covered = images[index].clone()
        for number, (row, top, left) in enumerate(some):
            place = (slice(top, top + window), slice(left, left + window))
            covered[(number, slice(None), *place)] = over[(row, slice(None), *place)]
        falls = whole[index] - score(covered, index).float()
        for fall, (row, top, left) in zip(falls, some, strict=True):
            total[row, top // cell : top // cell + wide, left // cell : left // cell + wide] += fall
    for top in starts:
        for left in starts:
            times[top // cell : top // cell + wide, left // cell : left // cell + wide] += 1
    return total / times, whole


@torch.no_grad()
def occlusion(pairs: Pairs) -> Found:
    """By how much the match falls, the similarity, or the log-probability of the text as a caption; of a classifier without a text that
    of its class.

    Raises:
        CannotShow: if there is nothing that could fall.
    """
    score, name = score_of(pairs)
    window, stride = window_of(pairs.images.shape[-1], pairs.look)
    heat, whole = occlude(score, pairs.images, _baseline(pairs), window, stride, pairs.look.batch)
    return Found(heat, score=whole, score_name=name)


def _baseline(pairs: Pairs) -> Tensor:
    """(B, 3), or (B, 3, S, S) of blurred pictures, in the units of the normalised pictures."""
    said, images = pairs.look.baseline, pairs.images
    if said == "mean":
        return images.mean((2, 3))
    if said == "border":
        sides = images[:, :, 0], images[:, :, -1], images[:, :, 1:-1, 0], images[:, :, 1:-1, -1]
        return torch.cat(sides, 2).mean(2)
    if said == "blur":
        return _blurred(images, images.shape[-1] / 8)
    colour = _COLOURS.get(said)
    if colour is None:
        try:
            if len(said) != 7 or said[0] != "#":
                raise ValueError
            colour = tuple(int(said[place : place + 2], 16) / 255 for place in (1, 3, 5))  # type: ignore[assignment]
        except ValueError:
            known = ", ".join(("mean", "border", "blur", *_COLOURS))
            raise ConfigError(f"baseline is {said!r}; expected {known}, or a colour such as #7f7f7f") from None
    view = pairs.model.processor.view
    flat = (torch.tensor(colour) - torch.tensor(view.mean)) / torch.tensor(view.std)
    return flat.to(images).expand(len(images), 3)


def _blurred(images: Tensor, deviation: float) -> Tensor:
    """(B, 3, S, S) under a Gaussian of that deviation in pixels, cut off at three of them; beyond the border its nearest pixels."""
    reach = math.ceil(3 * deviation)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / deviation) ** 2)
    weights = (weights / weights.sum()).to(images.dtype)
    flat = images.flatten(0, 1)[:, None]
    across = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), weights[None, None, None, :])
    down = F.conv2d(F.pad(across, (0, 0, reach, reach), mode="replicate"), weights[None, None, :, None])
    return down[:, 0].unflatten(0, images.shape[:2])
