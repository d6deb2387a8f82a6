"""Maps over one picture for the API: of each word of a text, of a text, of the class a model gives, or of attention.

What can be shown decides: a model that reads both together has a map for each word; one that compares them, or was tuned for
classes, one map of what speaks for the text or the class; without a text there is the attention of the last block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.abilities import LacksAbility
from multiway.data.thumbnail import picture_uri
from multiway.data.view import from_squares
from multiway.explain.attention import grid_of, over_patches
from multiway.explain.evidence import class_evidence, text_evidence
from multiway.explain.seen import see
from multiway.explain.words import overlay, word_maps
from multiway.hub.model import Model

__all__ = ["Looking", "look"]

_WORDS = "cross-attention (mean of blocks and heads) and its Grad-CAM"
_EVIDENCE = "Grad-CAM (arXiv 1610.02391)"


@dataclass(frozen=True)
class Looking:
    """What was seen; see `schemas.Explained`.

    Attributes:
        square: (side, side, 3) uint8, what the model saw.
        maps: name and (rows, columns) of each, not negative.
    """

    kind: Literal["words", "text", "class", "attention"]
    method: str
    measure: Literal["log-odds", "similarity", "probability"] | None
    score: float | None
    square: np.ndarray
    maps: tuple[tuple[str, Tensor], ...]

    def drawn(self, number: int, side: int) -> str:
        """A map over the picture, as data URI."""
        return picture_uri(overlay(Image.fromarray(self.square), self.maps[number][1], side), side)


def look(model: Model, square: np.ndarray, text: str = "") -> Looking:
    """Look at one picture.

    Args:
        square: (side, side, 3) uint8.
        text: to look for; empty for none.

    Raises:
        LacksAbility: if the model has no maps for this.
    """
    able = model.abilities()
    pixels = from_squares(torch.from_numpy(square[None]), model.processor.view).to(model.device)
    if text and "match_with_maps" in able:
        words = word_maps(model, pixels, text)
        maps = [(f"{word} (attention)", words.attention[place]) for place, word in enumerate(words.words)]
        maps += [(f"{word} (Grad-CAM)", words.grad_cam[place]) for place, word in enumerate(words.words)]
        return Looking("words", _WORDS, "log-odds", words.odds, square, tuple(maps))
    if text:
        if "encode_text" not in able or "compare" not in able:
            raise LacksAbility(f"{model.name} compares no texts with pictures; leave the text out")
        tokens = model.processor.texts([text])
        with torch.no_grad():
            said = model.method.encode_text(tokens.ids.to(model.device), tokens.mask.to(model.device))  # type: ignore[operator]
        found = text_evidence(model.method, pixels, said)
        if found is None:
            raise LacksAbility(
                f"{model.name} compares texts with something else than places of a picture; leave the text out"
            )
        return Looking("text", _EVIDENCE, "similarity", float(found[1][0]), square, ((text, found[0][0].cpu()),))
    if "classify" in able:
        judged = class_evidence(model.method, pixels)
        if judged is not None:
            name, share = model.classes[int(judged[1][0])], float(judged[2][0])
            return Looking("class", _EVIDENCE, "probability", share, square, ((name, judged[0][0].cpu()),))
    seen = see(model.method, pixels)
    if not seen.attends:
        raise LacksAbility(f"{model.name} has no attention over a picture by itself; ask with a text")
    try:
        grid_of(seen.blocks[-1].shape[-1])
    except ValueError as error:
        raise LacksAbility(f"{model.name}: {error}") from None
    heads = over_patches(seen.blocks[-1][0].float().cpu())
    named = tuple((f"head {number}", each) for number, each in enumerate(heads, 1))
    return Looking("attention", "attention of the last block, head by head", None, None, square, named)
