"""A batch of any size from a few rows: what a step is planned with, whether or not the data are at hand.

A recipe's own loader makes `SAMPLE` rows, so that all that a method asks for is there: views, masks, masked words. The batch
repeats them, pictures as shapes alone. Data that cannot be opened are stood in for by pictures of noise and by texts as long as
the tokeniser lets them be.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.batch import Batch, DataInfo
from multiway.data.open import BUNDLED, parse
from multiway.data.source import DataError, Row, stable_id
from multiway.data.tokenizer import Tokenizer
from multiway.recipes.recipe import Recipe
from multiway.world import World

__all__ = ["IMAGENET", "Rows", "StandIn", "hollow_batch", "open_rows"]

SAMPLE = 16
"""Rows that are really made."""

MEASURED = 4096
"""Texts whose lengths are looked at, at most."""

IMAGENET = 1_281_167
_SOME = 1_000_000  # rows of data of which nothing is known
_TEXT = ("text", "text_mask", "word_starts", "masked_text", "masked")  # (B, L), as long as the longest text
_OWN = ("image_id", "text_id", "sample_index")  # differ from row to row


@dataclass(frozen=True)
class StandIn:
    """Rows in place of data that are not here: see `data/source.py` for what a source is.

    Attributes:
        name: of the data that it stands for.
        rows: how many.
        words: of every caption.
        side: of every picture, in pixels.
    """

    name: str
    rows: int
    words: int
    side: int
    split: str = "train"
    classes: tuple[str, ...] = tuple(f"class {number}" for number in range(1000))
    templates: tuple[str, ...] = ("{}",)
    fingerprint: str = ""

    @property
    def tokenizer_captions(self) -> tuple[str, ...]:
        """What a tokeniser can be learned from."""
        return (self.caption(0), self.caption(1))

    def caption(self, index: int) -> str:
        """Words of one letter: at least a token each."""
        return " ".join(chr(ord("a") + (index + place) % 26) for place in range(self.words))

    def __len__(self) -> int:
        return self.rows

    def row(self, index: int) -> Row:
        """A caption of its own and a class."""
        return Row(str(index), stable_id(str(index)), (self.caption(index),), index % len(self.classes))

    def image(self, index: int) -> Image.Image:
        """Noise."""
        pixels = np.random.default_rng(index).integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


@dataclass(frozen=True)
class Rows:
    """A few rows as the recipe's loader makes them, and what is known of all.

    Attributes:
        batch: `SAMPLE` rows, real, as they leave the loader.
        info: what the method is built for.
        tokens: of the longest text of a batch; 0 where nothing is read.
        samples: rows of the data.
        seconds: in which one process of this machine made a row ready; 0 for rows that stand in.
        why_not: why they stand in for the data; empty where they are of the data.
    """

    batch: Batch
    info: DataInfo
    tokens: int
    samples: int
    seconds: float
    why_not: str


def open_rows(recipe: Recipe, tokens: int = 0, samples: int = 0) -> Rows:
    """Rows of a recipe's data, or in their place.

    Args:
        tokens: of the longest text of a batch; 0 for what the data have, or for the tokeniser's context where they are not here.
        samples: rows of data that are not here; 0 for those of ImageNet, or a million of any other.

    Raises:
        ConfigError: if the recipe cannot be built.
    """
    settings = replace(
        recipe.settings, batch=SAMPLE, accumulate=1, cache=0, cache_bf16=False, cache_on_cpu=False, workers=0
    )
    small = replace(recipe, settings=settings, init="")
    source, why_not = _source(recipe, samples)
    spec = recipe.tokenizer
    tokenizer: Any  # a recipe whose `tokeniser` is None takes None where others take one
    try:
        tokenizer = small.tokeniser(source)
    except DataError as error:  # a tokenizer.json that is not here
        why_not, spec = why_not or str(error), replace(spec, path="")
        tokenizer = Tokenizer.open(spec, small.texts(source))
    info = small.info(source, tokenizer)
    if why_not and tokenizer is not None:
        info = replace(info, vocabulary=max(info.vocabulary, spec.vocabulary))
    loader = small.loader(source, tokenizer, info, World())
    batch = loader.batch(0)
    began = time.perf_counter()
    loader.batch(1)
    seconds = 0.0 if why_not else (time.perf_counter() - began) / SAMPLE
    longest = 0
    if batch.text is not None and tokenizer is not None:
        longest = tokens or (tokenizer.context if why_not else _longest(source, tokenizer, recipe.settings.batch))
        longest = min(longest, tokenizer.context)
    return Rows(batch, info, longest, len(source), seconds, why_not)


def _source(recipe: Recipe, samples: int) -> tuple[Any, str]:
    """The data, or what stands in for them and why."""
    name = recipe.data or "no data"
    try:
        if not recipe.data:
            raise DataError(f"{recipe.name} {recipe.preset} names none; --data does")
        parsed = parse(recipe.data)
        if recipe.preset != "tiny" and parsed.name in BUNDLED and not samples:
            why = f"{recipe.data} is not what {recipe.name} {recipe.preset} is made for"
        else:
            source = recipe.open(recipe.data, "train")
            return source, ""
    except (DataError, OSError) as error:
        why = str(error)
    rows = samples or (IMAGENET if name.startswith("imagenet") else _SOME)
    side = max(recipe.view.kept, *(kind.size for kind in recipe.drawn.views)) if recipe.drawn else recipe.view.kept
    return StandIn(name, rows, recipe.tokenizer.context, side), why


def _longest(source: Any, tokenizer: Tokenizer, rows: int) -> int:
    """Tokens of the longest text among as many rows as a batch has, spread over the data."""
    count = min(rows, MEASURED, len(source))
    places = np.linspace(0, len(source) - 1, count).astype(int)
    texts = [caption for place in places for caption in source.row(int(place)).captions]
    return int(tokenizer(texts).mask.sum(1).max())


def hollow_batch(rows: Rows, count: int) -> Batch:
    """A batch of `count` rows like these, made within `shapes_only`: what says what a row holds is known, pictures are shapes."""
    changed: dict[str, Any] = {}
    for each in fields(Batch):
        value = getattr(rows.batch, each.name)
        if isinstance(value, Tensor):
            changed[each.name] = _spread(each.name, value, rows, count)
        elif each.name == "views":
            changed[each.name] = tuple(_spread("views", view, rows, count) for view in value)
    return replace(rows.batch, captions=(), skipped=(), **changed)


def _spread(name: str, value: Tensor, rows: Rows, count: int) -> Tensor:
    if value.dtype == torch.uint8 or (value.is_floating_point() and value.ndim > 2):
        return torch.empty(count, *value.shape[1:], dtype=value.dtype)
    if name in _OWN:
        return torch.arange(count) % max(1, rows.samples)
    if name in _TEXT:
        value = _fit(value, rows.tokens)
    repeats = -(-count // len(value))
    return value.repeat(repeats, *[1] * (value.ndim - 1))[:count].clone()


def _fit(value: Tensor, length: int) -> Tensor:
    """(B, L) cut or padded to another length. Padding is what padding is already: unmasked, and the ids that end a row."""
    missing = length - value.shape[1]
    if missing <= 0:
        return value[:, :length]
    last = torch.zeros_like(value[:, -1:]) if value.dtype == torch.bool else value[:, -1:]
    return torch.cat([value, last.expand(-1, missing)], 1)
