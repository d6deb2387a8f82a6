"""What a method makes of a picture and a text, as one vector, and how wide things are, whatever the method calls it.

A method that fuses gives the vector itself. For a dual encoder it is [v, t, v * t, |v - t|] (Conneau et al., 2017, arXiv 1705.02364,
section 3.1, for sentences).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from multiway.abilities import Encoded, Fused, abilities_of
from multiway.config import ConfigError
from multiway.methods.finetune_config import FineTuneConfig
from multiway.methods.method import Method

__all__ = ["Widths", "fuse", "in_one", "picture_size", "widths"]

_ANY_SIZE = 64  # side of the picture by which widths are found, for towers that take any


def fuse(base: Method, image: Encoded, text: Encoded, tokens: bool = False) -> Fused:
    """What the method makes of a pair, or the adapter of a dual encoder."""
    if "fuse" in abilities_of(base):
        return base.fuse(image, text, tokens=tokens)  # type: ignore[operator, no-any-return]
    v, t = (_vector(side) for side in (image, text))
    return Fused(torch.cat([v, t, v * t, (v - t).abs()], 1))


def in_one(images: tuple[Encoded, ...], sides: Tensor) -> Encoded:
    """The tokens of several pictures as those of one, each marked by its own of the vectors (P, W)."""
    tokens = [each.tokens + side for each, side in zip(images, sides, strict=True) if each.tokens is not None]
    return replace(images[0], tokens=torch.cat(tokens, 1), memory=None)  # each was read without the other


@dataclass(frozen=True)
class Widths:
    """Of a pair's vector, of picture tokens, and of the text's tokens once they have seen the picture."""

    pair: int
    picture: int
    word: int


@torch.no_grad()
def widths(base: Method, config: FineTuneConfig) -> Widths:
    """Found by reading a blank picture, and a text where it is needed.

    Raises:
        ConfigError: if the method cannot do what is asked of it, before anything is trained.
    """
    able = abilities_of(base)
    two = config.two if config.pictures == 2 else "pair"
    if "fuse" not in able and two != "pair":
        raise ConfigError(
            f"{config.method} reads no picture with its text, so that two pictures can only be compared as two "
            f"pairs: --method.two pair; given {two}"
        )
    if "encode_image" not in able:
        width = int(base.fused_width)  # type: ignore[arg-type]
        return Widths(width, width, width)
    if config.kind == "pointed" and hasattr(base.config, "queries"):
        raise ConfigError(
            f"{config.method} keeps of a picture {base.config.queries} queries, which lie nowhere in it; "
            "regions are scored by methods that keep patches"
        )
    training = base.training
    base.eval()
    side = picture_size(base.config) or _ANY_SIZE
    image = base.encode_image(torch.zeros(1, 3, side, side))  # type: ignore[operator]
    pair = int(base.fused_width) if "fuse" in able else 4 * _vector(image).shape[1]  # type: ignore[arg-type]
    picture = image.tokens.shape[2] if image.tokens is not None else 0
    word = 0
    if two not in ("pair", "own"):
        text = base.encode_text(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool))  # type: ignore[operator]
        shown = image if two == "pair-attention" else in_one((image, image), torch.zeros(2, picture))
        try:
            tokens = fuse(base, shown, text, tokens=True).tokens
        except ValueError as error:
            raise ConfigError(
                f"{config.method} does not read two pictures in one sequence ({error}); take --method.two pair"
            ) from error
        word = tokens.shape[2] if tokens is not None else 0
    base.train(training)
    return Widths(pair, picture, word)


def picture_size(config: Any) -> int | None:
    """The side of the pictures that a method's config is made for; None if any will do, or none is read."""
    size = getattr(config.image if hasattr(config, "image") else config, "size", None)
    return None if size is None else int(size)


def _vector(side: Encoded) -> Tensor:
    """One vector a row: the embedding, or where there is none the mean of the tokens."""
    if side.has_embedding:
        return side.embedding
    assert side.tokens is not None
    if side.mask is None:
        return side.tokens.mean(1)
    real = side.mask[..., None].to(side.tokens.dtype)
    return (side.tokens * real).sum(1) / real.sum(1).clamp(min=1)
