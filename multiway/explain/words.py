"""Where each word of a text looks in a picture: cross-attention, and its Grad-CAM.

Li et al., ALBEF, 2021, arXiv 2107.07651, section 5.3, after Selvaraju et al., Grad-CAM, 2017, arXiv 1610.02391: with A the
attention of a block's heads from a word to the patches, and S the score that picture and text match,

    M = mean over heads of  A * max(0, dS / dA)

Attention says where a word looks, Grad-CAM where looking speaks for the match.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.abilities import Encoded, require
from multiway.batch import ViewSpec
from multiway.data.view import draw

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
    method = model.method
    device = next(method.parameters()).device
    tokens = model.processor.texts([text])
    ids, mask = tokens.ids.to(device), tokens.mask.to(device)
    pixels = picture if isinstance(picture, Tensor) else model.processor.images([picture])
    with torch.no_grad():
        image = method.encode_image(pixels.to(device))
        said = method.encode_text(ids, mask)
    # The encoders are left out of the graph: only the fused half is differentiated.
    with torch.enable_grad():
        image_tokens = image.tokens.clone().requires_grad_()
        seen = Encoded(image.embedding, image_tokens)
        odds, maps = method.match_with_maps(seen, Encoded(said.embedding, said.tokens, mask, ids))
        gradients = torch.autograd.grad(odds.sum(), maps)
    chosen = range(len(maps)) if layer is None else [layer]
    if layer is not None and not 0 <= layer < len(maps):
        raise ValueError(f"there is no fused block {layer}; there are {len(maps)}, numbered from 0")
    attention = torch.stack([maps[i][0].detach().mean(0) for i in chosen]).mean(0)
    grad_cam = torch.stack([(maps[i][0] * gradients[i][0].relu()).detach().mean(0) for i in chosen]).mean(0)
    words, spans = _words(model, tokens.ids[0], tokens.word_starts[0], tokens.mask[0])
    return WordMaps(words, _over_grid(attention, spans), _over_grid(grad_cam, spans), float(odds.detach()))


def _words(model: Any, ids: Tensor, starts: Tensor, mask: Tensor) -> tuple[tuple[str, ...], list[range]]:
    """The words of a text and the places of their tokens; special tokens belong to none."""
    tokenizer = model.processor.tokenizer
    special = set(tokenizer.special.values())
    end = next((i for i in range(len(ids)) if i and (not mask[i] or int(ids[i]) in special)), len(ids))
    first = [i for i in range(end) if starts[i]]
    spans = [range(i, j) for i, j in zip(first, [*first[1:], end], strict=True)]
    return tuple(tokenizer.decode(ids[span.start : span.stop].tolist()) for span in spans), spans


def _over_grid(maps: Tensor, spans: list[range]) -> Tensor:
    """(L, N) over tokens to (W, rows, columns) over words and patches; whatever stands before the patches is dropped."""
    side = math.isqrt(maps.shape[1])
    patches = maps[:, maps.shape[1] - side * side :].float().cpu()
    if not spans:
        return patches.new_zeros(0, side, side)
    return torch.stack([patches[span.start : span.stop].mean(0) for span in spans]).unflatten(1, (side, side))


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
