"""Occlusion: what of a picture a score needs, by covering it piece by piece.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014, arXiv 1311.2901, section 4.2: a square of one colour
is moved over the picture, and the map is by how much the score falls. It asks nothing of the model but the score, so it is
the one map that every model has, and the one that holds others to account; it costs as many passes as there are places.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from multiway.config import ConfigError
from multiway.explain.pairs import CannotShow, Found, Look, Pairs

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
        baseline: (B, 3) colour that is put over each, in the units of the pictures.
        window, stride: in pixels.
        batch: covered pictures at a time.

    Returns:
        (B, g, g) by how much the score falls where a cell is covered, mean over the windows that cover it, and (B,) the scores of the
        pictures as they are. Cells are of the largest side that all windows are made of: the window's own where they do not overlap.

    Raises:
        ConfigError: for a window or a stride that does not cover the picture.
    """
    rows, _, side, _ = images.shape
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
            covered[number, :, top : top + window, left : left + window] = baseline[row, :, None, None]
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
    score, name = _score(pairs)
    window, stride = window_of(pairs.images.shape[-1], pairs.look)
    heat, whole = occlude(score, pairs.images, _baseline(pairs), window, stride, pairs.look.batch)
    return Found(heat, score=whole, score_name=name)


def _baseline(pairs: Pairs) -> Tensor:
    """(B, 3) in the units of the normalised pictures."""
    said = pairs.look.baseline
    if said == "mean":
        return pairs.images.mean((2, 3))
    colour = _COLOURS.get(said)
    if colour is None:
        try:
            if len(said) != 7 or said[0] != "#":
                raise ValueError
            colour = tuple(int(said[place : place + 2], 16) / 255 for place in (1, 3, 5))  # type: ignore[assignment]
        except ValueError:
            known = ", ".join(("mean", *_COLOURS))
            raise ConfigError(f"baseline is {said!r}; expected {known}, or a colour such as #7f7f7f") from None
    view = pairs.model.processor.view
    flat = (torch.tensor(colour) - torch.tensor(view.mean)) / torch.tensor(view.std)
    return flat.to(pairs.images).expand(len(pairs.images), 3)


def _score(pairs: Pairs) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    method, able, asked = pairs.method, pairs.able, pairs.look.score
    pairs.require("encode_image", why=f"{method.name} reads no pictures")
    if pairs.texts is not None and "match" in able and asked in ("auto", "match"):

        def odds(images: Tensor, rows: Tensor) -> Tensor:
            return method.match(method.encode_image(images), pairs.text.rows(rows))  # type: ignore[no-any-return]

        return odds, "log-odds of a match"
    if pairs.texts is not None and "compare" in able and asked in ("auto", "similarity"):

        def likeness(images: Tensor, rows: Tensor) -> Tensor:
            seen, said = method.encode_image(images), pairs.text.rows(rows)
            if seen.has_embedding:
                return (seen.embedding.float() * said.embedding.float()).sum(1)
            each = torch.arange(len(rows), device=images.device)[:, None]
            return torch.cat([method.compare(seen.rows(row), said.rows(row)).flatten() for row in each])

        return likeness, "similarity"
    if pairs.texts is not None and "caption_likelihood" in able and asked in ("auto", "caption"):

        def likely(images: Tensor, rows: Tensor) -> Tensor:
            said = pairs.text.rows(rows)
            assert said.ids is not None and said.mask is not None
            told = method.caption_likelihood(method.encode_image(images), said.ids, said.mask)
            return told.logp.float().sum(1)  # type: ignore[no-any-return]

        return likely, "log-probability of the text"
    if pairs.texts is None and "classify" in able:
        best = method.classify(pairs.image).argmax(1)

        def sure(images: Tensor, rows: Tensor) -> Tensor:
            scores = method.classify(method.encode_image(images)).float().log_softmax(1)
            return scores.gather(1, best[rows][:, None])[:, 0]  # type: ignore[no-any-return]

        return sure, "log-probability of its class"
    if pairs.texts is None:
        pairs.require_texts()
    raise CannotShow(
        f"{method.name} has no {'score' if asked == 'auto' else asked} of a picture with a text that could fall"
    )
