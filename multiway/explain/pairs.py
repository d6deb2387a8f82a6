"""Pictures with texts, row by row, as every kind of map takes them; and what a kind gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from multiway.abilities import Encoded, abilities_of
from multiway.config import ConfigError
from multiway.explain.attention import grid_of
from multiway.explain.seen import Joint, see_joint
from multiway.explain.spans import word_mask

__all__ = ["CannotShow", "Found", "Look", "Pairs", "Score", "chosen_heads", "chosen_layers", "on_grid"]

Score = Literal["auto", "match", "similarity", "caption"]


class CannotShow(ValueError):
    """A model has nothing of this kind to show; the message says why."""


@dataclass(frozen=True)
class Look:
    """How to look.

    Attributes:
        layers: blocks, from 0, or from the last if negative; empty for those that the kind takes by itself.
        heads: of attention; empty for all.
        window, stride: of occlusion, in pixels of the square that the model sees; 0 for a quarter of its side, and half of the window.
        baseline: what is put over the picture in occlusion: `mean`, its own mean colour; `border`, that of its outermost pixels; `blur`,
            the picture itself out of focus; `black`, `grey`, `white`, or `#rrggbb`.
        score: what occlusion asks for: `match`, the log-odds that picture and text are a pair; `similarity`; or `caption`, the
            log-probability of the text as a caption of the picture. `auto` is the first of these that a model has.
        batch: pictures that occlusion has read at once.
        against: other texts; maps of a score (occlusion, itc-cam) are of how far it is above their mean (`scores.py`).
    """

    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    window: int = 0
    stride: int = 0
    baseline: str = "mean"
    score: Score = "auto"
    batch: int = 64
    against: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.window < 0 or self.stride < 0 or self.batch < 1:
            raise ConfigError(
                f"given window {self.window}, stride {self.stride} and batch {self.batch}; expected pixels (0 for the default) and "
                "one picture at a time at least"
            )
        if not all(text.strip() for text in self.against):
            raise ConfigError("one of the texts to hold scores against is empty; expected words")
        if self.score not in get_args(Score):
            raise ConfigError(f"score is {self.score!r}; expected {', '.join(get_args(Score))}")


@dataclass(frozen=True)
class Found:
    """Maps of B pairs.

    Attributes:
        heat: (B, rows, columns) of the whole text, or of the picture where no text is asked about.
        tokens: (B, L, rows, columns) of each token of the text; None for kinds that have one map.
        heads: (B, layers, heads, rows, columns), of all layers and heads, chosen or not; None for kinds without.
        layers: numbers of those that `heat` is the mean over; empty for kinds without.
        score: (B,) what is explained; None where nothing is.
        score_name: what it is called.
        chosen: (B,) what each map speaks for where the model chose that itself, a class; empty for kinds that are told.
    """

    heat: Tensor
    tokens: Tensor | None = None
    heads: Tensor | None = None
    layers: tuple[int, ...] = ()
    score: Tensor | None = None
    score_name: str = ""
    chosen: tuple[str, ...] = ()

    def cpu(self) -> Found:
        """In float32, without a graph, on the CPU."""

        def plain(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.detach().float().cpu()

        heat = plain(self.heat)
        assert heat is not None
        return replace(self, heat=heat, tokens=plain(self.tokens), heads=plain(self.heads), score=plain(self.score))


@dataclass(frozen=True)
class Pairs:
    """B pictures and as many texts, or none.

    Attributes:
        model: a `hub.model.Model`, or what has its `method`, `processor` and `device`.
        pictures: of any size; or (B, 3, H, W) as the model takes them, normalised.
        texts: text i is about picture i; None where only pictures are looked at.
        look: how.
    """

    model: Any
    pictures: Sequence[Image.Image] | Tensor
    texts: Sequence[str] | None = None
    look: Look = field(default_factory=Look)

    def __post_init__(self) -> None:
        if not len(self.pictures) or (self.texts is not None and len(self.texts) != len(self.pictures)):
            said = "no" if self.texts is None else len(self.texts)
            raise ValueError(
                f"given {len(self.pictures)} pictures and {said} texts; expected one picture at least, and a text for each"
            )

    @property
    def method(self) -> Any:
        """Whose maps they are."""
        return self.model.method

    @property
    def able(self) -> tuple[str, ...]:
        """What the method can be asked."""
        return abilities_of(self.method)

    @cached_property
    def images(self) -> Tensor:
        """(B, 3, H, W), normalised, on the model's device."""
        given = self.pictures
        pixels = given if isinstance(given, Tensor) else self.model.processor.images(list(given))
        return pixels.to(self.model.device)  # type: ignore[no-any-return]

    @cached_property
    def image(self) -> Encoded:
        """The pictures, tokens kept, without a graph."""
        with torch.no_grad():
            return self.method.encode_image(self.images)  # type: ignore[no-any-return]

    @cached_property
    def text(self) -> Encoded:
        """The texts, tokens kept, without a graph.

        Raises:
            CannotShow: if there are none, or the model reads none.
        """
        self.require_texts()
        return self._read(self.texts or ())

    @cached_property
    def others(self) -> Encoded | None:
        """The texts that scores are held against, as `text`; None for none.

        Raises:
            CannotShow: if the model reads no texts.
        """
        self.require_texts()
        return self._read(self.look.against) if self.look.against else None

    def _read(self, texts: Sequence[str]) -> Encoded:
        read = self.model.processor.texts(list(texts))
        ids, mask = read.ids.to(self.model.device), read.mask.to(self.model.device)
        with torch.no_grad():
            said: Encoded = self.method.encode_text(ids, mask)
        # Kept for those who weigh tokens: a method's own encoding need not carry them.
        return replace(said, ids=ids, mask=mask)

    @cached_property
    def joint(self) -> Joint | None:
        """The pairs as one transformer reads them together; None where none does.

        Raises:
            CannotShow: as of `text`.
        """
        if not {"encode_image", "encode_text", "fuse"} <= set(self.able):
            return None
        return see_joint(self.method, self.image, self.text)

    @cached_property
    def words(self) -> Tensor:
        """(B, L) bool, True at tokens of words: neither start, end nor padding."""
        assert self.text.ids is not None
        mask = word_mask(self.model.processor.tokenizer, list(self.texts or ()), self.text.ids.shape[1])
        return mask.to(self.model.device)

    def require_texts(self) -> None:
        """Refuse where there is no text to look for.

        Raises:
            CannotShow: saying whether it was not given, or would not be read.
        """
        if "encode_text" not in self.able or self.model.processor.tokenizer is None:
            raise CannotShow(f"{self.method.name} reads no texts")
        if self.texts is None:
            raise CannotShow("it asks where a text is seen, and no text is given")

    def require(self, *abilities: str, why: str) -> None:
        """Refuse a method that lacks any of these.

        Raises:
            CannotShow: with the reason that was given.
        """
        if not set(abilities) <= set(self.able):
            raise CannotShow(why)


def chosen_layers(asked: Sequence[int], layers: int, default: Sequence[int]) -> tuple[int, ...]:
    """Numbers of the blocks that are looked at, from 0.

    Raises:
        ConfigError: for one that there is none of.
    """
    for layer in asked:
        if not -layers <= layer < layers:
            raise ConfigError(
                f"there is no layer {layer}; the model has {layers} of these, counted from 0 (or from the last, -1)"
            )
    return tuple(dict.fromkeys(layer % layers for layer in asked)) or tuple(default)


def chosen_heads(asked: Sequence[int], heads: int) -> tuple[int, ...]:
    """Numbers of the heads that are looked at, from 0; all by default.

    Raises:
        ConfigError: for one that there is none of.
    """
    for head in asked:
        if not -heads <= head < heads:
            raise ConfigError(f"there is no head {head}; each layer has {heads}, counted from 0 (or from the last, -1)")
    return tuple(dict.fromkeys(head % heads for head in asked)) or tuple(range(heads))


def on_grid(maps: Tensor) -> Tensor:
    """(..., N) over a picture's tokens to (..., rows, columns) over its patches; what stands before these is dropped.

    Raises:
        CannotShow: if the patches are no square.
    """
    try:
        side, before = grid_of(maps.shape[-1])
    except ValueError as error:
        raise CannotShow(str(error)) from error
    return maps[..., before:].unflatten(-1, (side, side))
