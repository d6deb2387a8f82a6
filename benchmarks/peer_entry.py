"""What a contest with another library's model consists of: both sides' models with the same weights, and a batch for both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multiway.batch import Batch
from multiway.methods.method import Method, Step
from multiway.world import World

sys.path.append(str(Path(__file__).parents[1] / "tests" / "peers"))
from with_torchvision import ensure_torchvision

__all__ = ["END", "MASK", "PAD", "SIZES", "START", "Entry", "Size", "installed", "loaded", "our_loss", "texts"]

# Before transformers is imported, which looks for torchvision too.
_TORCHVISION = ensure_torchvision()


def installed(package: str) -> bool:
    """Whether a peer that needs torchvision can be imported here."""
    return _TORCHVISION and find_spec(package) is not None


@dataclass(frozen=True)
class Size:
    """Of a model and its batch: `length` is of the longest text, the shortest is half as long."""

    width: int
    layers: int
    heads: int
    pixels: int
    patch: int
    vocabulary: int
    length: int
    rows: int


SIZES = {
    "tiny": Size(width=128, layers=4, heads=2, pixels=64, patch=8, vocabulary=1024, length=20, rows=32),
    "mid": Size(width=384, layers=6, heads=6, pixels=128, patch=16, vocabulary=8192, length=20, rows=8),
}
START, END, PAD, MASK = 2, 3, 0, 1


@dataclass(frozen=True)
class Entry:
    """A contest, set up.

    Attributes:
        theirs, ours: make a model of either side, with the same weights each time.
        their_loss, our_loss: of a model, on the batch of the contest.
    """

    theirs: Callable[[], nn.Module]
    ours: Callable[[], nn.Module]
    their_loss: Callable[[Any], Tensor]
    our_loss: Callable[[Any], Tensor]


def texts(size: Size) -> Batch:
    """Random pictures, and texts of different lengths between the start and the end token, with some words masked."""
    generator = torch.Generator().manual_seed(0)
    rows, length = size.rows, size.length
    lengths = torch.randint(length // 2, length + 1, (rows,), generator=generator)
    lengths[0] = length
    mask = torch.arange(length) < lengths[:, None]
    ids = torch.randint(4, size.vocabulary - 2, (rows, length), generator=generator).where(mask, torch.tensor(PAD))
    ids[:, 0] = START
    ids[torch.arange(rows), lengths - 1] = END
    words = mask & (ids > END)
    masked = words & (torch.rand(rows, length, generator=generator) < 0.15)
    masked[:, 1] = True  # a word of each row at least
    numbers = torch.arange(rows)
    return Batch(
        images=torch.randn(rows, 3, size.pixels, size.pixels, generator=generator), text=ids, text_mask=mask,
        masked_text=ids.masked_fill(masked, MASK), masked=masked, image_id=numbers, text_id=numbers,
    )  # fmt: skip


def loaded(make: Callable[[], Any], weights: dict[str, Tensor]) -> Any:
    """A new model in training mode with the given weights."""
    model = make()
    model.load_state_dict(weights)
    return model.train()


def our_loss(batch: Batch) -> Callable[[Method], Tensor]:
    """The whole step of a method up to its loss."""
    return lambda method: method(batch, World(), Step()).total
