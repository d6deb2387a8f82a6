"""Maps of where words look in the picture while the two are matched: cross-attention by layer and head, and its Grad-CAM.

Cross-attention proper (ALBEF, BLIP, METER) or the part of joint attention that goes from words to patches (ViLT): every method
that has `match_with_maps`. Grad-CAM is of the log-odds that picture and text are a pair (ITM), as in Li et al., ALBEF, 2021,
arXiv 2107.07651, section 5.3; see `nn/grad_cam.py`. Unless others are asked for, the layer is the one that grounding takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multiway.abilities import Encoded
from multiway.explain.pairs import CannotShow, Found, Pairs, chosen_heads, chosen_layers, on_grid
from multiway.nn.grad_cam import chosen_block, grad_cam

__all__ = ["Across", "cross_attention", "look_across", "match_cam"]


@dataclass(frozen=True)
class Across:
    """One matching of B pairs.

    Attributes:
        odds: (B,) log-odds of a match, in the graph.
        maps: of each fused layer (B, heads, L, N) attention of text tokens over the picture's tokens, in the graph.
    """

    odds: Tensor
    maps: Sequence[Tensor]


def look_across(method: Any, image: Encoded, text: Encoded) -> Across:
    """Match pairs, tokens kept, and keep the attention. The encoders are left out of the graph: only what fuses is differentiated."""
    assert image.tokens is not None
    with torch.enable_grad():
        seen = Encoded(image.embedding, image.tokens.detach().clone().requires_grad_(), image.mask)
        odds, maps = method.match_with_maps(seen, text)
    return Across(odds, maps)


def cross_attention(pairs: Pairs) -> Found:
    """Attention of each token of the text over the patches, mean over chosen layers and heads; of the text, over its real tokens.

    Raises:
        CannotShow: if words and patches do not meet in attention.
    """
    across = _across(pairs)
    layers = chosen_layers(pairs.look.layers, len(across.maps), (chosen_block(None, len(across.maps)),))
    heads = chosen_heads(pairs.look.heads, across.maps[0].shape[1])
    maps = on_grid(
        torch.stack([each.detach().float() for each in across.maps], 1)
    )  # (B, layers, heads, L, rows, columns)
    tokens = maps[:, layers][:, :, heads].mean((1, 2))
    weight = _weights(pairs.text)
    by_head = (weight[:, None, None] * maps).sum(3)
    return Found((weight * tokens).sum(1), tokens, by_head, layers, across.odds.detach(), "log-odds of a match")


def match_cam(pairs: Pairs) -> Found:
    """Grad-CAM of the log-odds of a match, by each token's attention; of the text the mean over its real tokens, as ALBEF's code has it.

    Unless layers are asked for, the text's map is of the layer that grounding takes, and those of single tokens are the mean over all
    layers: in the last one the score hangs on the class token alone, and words would have none.

    Raises:
        CannotShow: if words and patches do not meet in attention, or the score does not depend on it.
    """
    across = _across(pairs)
    count = len(across.maps)
    layers = chosen_layers(pairs.look.layers, count, (chosen_block(None, count),))
    heads = chosen_heads(pairs.look.heads, across.maps[0].shape[1])
    # What the score does not depend on (of METER's last layer) is left out where it was not asked for.
    wide = layers if pairs.look.layers else tuple(layer for layer in range(count) if _reaches(across, layer))
    try:
        cams = dict(zip(wide, grad_cam(across.odds, [across.maps[layer] for layer in wide], heads), strict=True))
        heat = on_grid(torch.stack([cams[layer] for layer in layers]).mean(0))
    except (KeyError, ValueError) as error:
        raise CannotShow(f"the score does not depend on the attention of layer {layers[0]}: {error}") from error
    tokens = on_grid(torch.stack(list(cams.values())).mean(0))
    heat = (_weights(pairs.text) * heat).sum(1)
    return Found(heat, tokens, layers=layers, score=across.odds.detach(), score_name="log-odds of a match")


def _reaches(across: Across, layer: int) -> bool:
    (gradient,) = torch.autograd.grad(across.odds.sum(), [across.maps[layer]], allow_unused=True, retain_graph=True)
    return gradient is not None


def _across(pairs: Pairs) -> Across:
    pairs.require_texts()
    why = f"{pairs.method.name} has no attention of words over patches"
    pairs.require("encode_image", "match_with_maps", why=why)
    return look_across(pairs.method, pairs.image, pairs.text)


def _weights(text: Encoded) -> Tensor:
    """(B, L, 1, 1) float32, even over real tokens, summing to 1. Weighed by products, which autocast leaves in full precision."""
    assert text.mask is not None
    mask = text.mask.float()
    return (mask / mask.sum(1, keepdim=True).clamp(min=1))[:, :, None, None]
