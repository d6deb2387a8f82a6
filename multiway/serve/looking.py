"""Maps of one picture for the API and the page: `multiway.explain`, kind by kind, with what each costs.

What a model has to show is found once, by showing it. Occlusion reads the picture again for every place that it covers; every other
kind takes a pass or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from multiway.config import ConfigError
from multiway.data.thumbnail import picture_uri
from multiway.data.view import from_squares
from multiway.explain.look import Explanation, HeatMap, explain_pairs
from multiway.explain.occlusion import starts_of, window_of
from multiway.explain.overlay import drawn_part, with_heat
from multiway.explain.pairs import Look
from multiway.hub.model import Model

__all__ = ["COSTLY", "Looked", "Looks", "drawn", "look", "looks_of", "passes"]

COSTLY = "occlusion"
"""The kind that is shown only where it is named."""

_WEIGHS = {"grad-cam": "cross-attention", "itc-cam": "attention", "class-cam": "attention"}
"""Of kinds that weigh attention by a gradient, whose layers and heads they take."""


@dataclass(frozen=True)
class Looked:
    """One kind of map of one picture.

    Attributes:
        square: (side, side, 3) uint8, as the model sees it.
        text: to look for; empty for none.
        kind: its name.
        look: how.
    """

    square: np.ndarray
    text: str
    kind: str
    look: Look


@dataclass(frozen=True)
class Looks:
    """What a model has to show, found with an even picture.

    Attributes:
        told: where a text is given.
        alone: where none is.
    """

    told: Explanation
    alone: Explanation

    @property
    def any(self) -> bool:
        """Whether there is anything."""
        return bool(self.told.maps or self.alone.maps)

    def of(self, text: str) -> Explanation:
        """Maps that there are for a text, or for none, and why there are no others."""
        return self.told if text.strip() else self.alone

    def usual(self, text: str) -> tuple[str, ...]:
        """Kinds that are shown where none is named: all but the costly one, unless there is no other."""
        maps = tuple(self.of(text).maps)
        return tuple(kind for kind in maps if kind != COSTLY) or maps

    def choices(self, kind: str, text: str) -> tuple[int, int]:
        """How many layers and heads there are to choose among; 0 for a kind that takes none."""
        maps = self.of(text).maps
        if kind not in maps:
            return 0, 0
        if kind == "rollout":  # through all layers, in one stream through those that read both
            heads = maps.get("attention", maps.get("cross-attention"))
            return 0, 0 if heads is None or heads.by_head is None else heads.by_head.shape[1]
        source = maps.get(_WEIGHS.get(kind, kind))
        return (
            (0, 0) if source is None or source.by_head is None else (source.by_head.shape[0], source.by_head.shape[1])
        )


@lru_cache(maxsize=1)
def looks_of(model: Model) -> Looks:
    """What a model that reads pictures has to show. Runs the model."""
    side = model.processor.view.size
    grey = np.full((1, side, side, 3), 127, np.uint8)
    pixels = from_squares(torch.from_numpy(grey), model.processor.view)
    # A window as large as the picture: whether there is something that falls is seen in one place as well as in 49.
    once = Look(window=side, stride=side)
    told, alone = (explain_pairs(model, pixels, texts, look=once)[0] for texts in (["a picture"], None))
    return Looks(told, alone)


def look(model: Model, asked: Looked) -> HeatMap:
    """Look.

    Raises:
        CannotShow, ConfigError: as of `multiway.explain`.
    """
    pixels = from_squares(torch.from_numpy(asked.square[None]), model.processor.view)
    texts = [asked.text] if asked.text.strip() else None
    try:
        return explain_pairs(model, pixels, texts, [asked.kind], asked.look)[0][asked.kind]
    except ConfigError as error:  # kinds have layers and heads of their own
        raise ConfigError(f"{asked.kind}: {error}") from error


def passes(kinds: Sequence[str], side: int, look: Look) -> int:
    """How often a picture is read for these kinds, one for each and as many as occlusion has places; with every other text anew.

    Raises:
        ConfigError: for a window or a stride that does not cover a square of `side` pixels.
    """
    places = len(starts_of(side, *window_of(side, look))) ** 2 if COSTLY in kinds else 0
    return (len(kinds) + places) * (1 + len(look.against))


def drawn(square: Image.Image, kind: str, heat: torch.Tensor) -> str:
    """A map over its picture as a PNG of the same size, as data URI."""
    return picture_uri(Image.fromarray(with_heat(square, drawn_part(kind, heat).numpy())), max(square.size), False)
