"""Where each word of a text looks in a picture: cross-attention, and its Grad-CAM.

Li et al., ALBEF, 2021, arXiv 2107.07651, section 5.3, after Selvaraju et al., Grad-CAM, 2017, arXiv 1610.02391: with A the
attention of a block's heads from a word to the patches, and S the score that picture and text match,

    M = mean over heads of  A * max(0, dS / dA)

Attention says where a word looks, Grad-CAM where looking speaks for the match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.abilities import require
from multiway.batch import ViewSpec
from multiway.data.view import draw
from multiway.explain.across import look_across
from multiway.explain.pairs import Pairs, on_grid
from multiway.explain.spans import over_words, words_of

__all__ = ["WordMaps", "overlay", "word_maps"]


@dataclass(frozen=True)
class WordMaps:
    """Maps of one text over one picture.

    Attributes:
        words: W words of the text, in order.
        attention: (W, rows, columns) share of each patch in a word's attention; each sums to at most 1, the rest being on
            the class token.
        grad_cam: (W, rows, columns), not negative.
        odds: log-odds that the two are a pair.
    """

    words: tuple[str, ...]
    attention: Tensor
    grad_cam: Tensor
    odds: float


def word_maps(model: Any, picture: Image.Image | Tensor, text: str, layer: int | None = None) -> WordMaps:
    """Look at one pair.

    Args:
        model: a `hub.model.Model` whose method has `match_with_maps`.
        picture: of any size, or its pixels as the method reads them, (1, 3, H, W).
        text: what is said of it.
        layer: fused block, from 0; None averages over all (the paper takes the third of six, found by trying).

    Raises:
        LacksAbility: if the method has no cross-attention to show.
        ValueError: if there is no such block.
    """
    require(model.method, ("encode_image", "encode_text", "match_with_maps"), "explain")
    pairs = Pairs(model, picture if isinstance(picture, Tensor) else [picture], [text])
    across = look_across(model.method, pairs.image, pairs.text)
    layers = range(len(across.maps)) if layer is None else [layer]
    if layer is not None and not 0 <= layer < len(across.maps):
        raise ValueError(f"there is no fused block {layer}; there are {len(across.maps)}, numbered from 0")
    gradients = torch.autograd.grad(across.odds.sum(), list(across.maps))
    attention = torch.stack([across.maps[i][0].detach().mean(0) for i in layers]).mean(0)
    grad_cam = torch.stack([(across.maps[i][0] * gradients[i][0].relu()).detach().mean(0) for i in layers]).mean(0)
    words = words_of(model.processor.tokenizer, text)
    looks, speaks = (over_words(on_grid(each.float().cpu()), words) for each in (attention, grad_cam))
    return WordMaps(tuple(word.text for word in words), looks, speaks, float(across.odds.detach()))


def overlay(picture: Image.Image, heat: Tensor, side: int = 128) -> Image.Image:
    """A picture in grey with a map over it in red: what exceeds the map's median, its greatest value at full strength.

    Attention that is spread evenly has a large sum and says nothing; the median is what an uninteresting patch gets.

    Args:
        picture: of any size.
        heat: (rows, columns), not negative.
        side: of the result, in pixels.

    Returns:
        RGB.
    """
    base = draw(picture, ViewSpec(size=side, crop="squash")).astype(np.float32)
    grey = base.mean(2, keepdims=True) * 0.55 + 0.45 * 255 * 0.9
    above = (heat.float() - heat.float().median()).clamp(min=0)
    strength = above / above.max().clamp(min=1e-12)
    large = torch.nn.functional.interpolate(
        strength[None, None], size=(side, side), mode="bicubic", align_corners=False
    )
    share = large[0, 0].clamp(0, 1).numpy()[:, :, None] * 0.85
    red = np.array([220.0, 30.0, 20.0], dtype=np.float32)
    return Image.fromarray((grey * (1 - share) + red * share).clip(0, 255).astype(np.uint8))
