"""Maps of where words look in the picture while the two are matched: cross-attention by layer and head, and its Grad-CAM.

Cross-attention proper (ALBEF, BLIP, METER) or the part of joint attention that goes from words to patches (ViLT, VLMo): every method
that has `match_with_maps`; and of a model that reads both in one sequence and matches nothing (BEiT-3's pre-training) the attention
alone. Grad-CAM is of the log-odds that picture and text are a pair (ITM), as in Li et al., ALBEF, 2021, arXiv 2107.07651, section 5.3;
see `nn/grad_cam.py`.

Unless layers are asked for, Grad-CAM of a text is of the layer that grounding takes, and attention the mean over all layers. A single
layer's attention may be an attention sink, one patch of background that takes most of it whatever is asked (Darcet et al., Vision
Transformers Need Registers, 2023, arXiv 2309.16588); that patch counts little in the score, so that Grad-CAM leaves it out.
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
    """Attention of each token of the text over the patches, mean over chosen layers (all by default) and heads; of the text, over its
    real tokens.

    Raises:
        CannotShow: if words and patches do not meet in attention.
    """
    across = _across(pairs) if "match_with_maps" in pairs.able else None
    joint = pairs.joint if across is None else None
    if joint is not None:
        each = [block[:, :, : joint.words, joint.words :] for block in joint.blocks]
    else:
        across = across or _across(pairs)
        each = [own.detach() for own in across.maps]
    layers = chosen_layers(pairs.look.layers, len(each), range(len(each)))
    heads = chosen_heads(pairs.look.heads, each[0].shape[1])
    maps = on_grid(torch.stack([own.float() for own in each], 1))  # (B, layers, heads, L, rows, columns)
    tokens = maps[:, layers][:, :, heads].mean((1, 2))
    weight = _weights(pairs.text)
    by_head = (weight[:, None, None] * maps).sum(3)
    scored = () if across is None else (across.odds.detach(), "log-odds of a match")
    return Found((weight * tokens).sum(1), tokens, by_head, layers, *scored)


def match_cam(pairs: Pairs) -> Found:
    """Grad-CAM of the log-odds of a match, by each token's attention; of the text the mean over its real tokens, as ALBEF's code has it.

    Unless layers are asked for, the text's map is of the layer that grounding takes, and those of single tokens are the mean over all
    layers: in the last one the score hangs on the class token alone, and words would have none.

    Raises:
        CannotShow: if words and patches do not meet in attention, or the score does not depend on it.
    """
    if "match_with_maps" not in pairs.able and "fuse" in pairs.able and pairs.joint is not None:
        raise CannotShow(f"{pairs.method.name} has no score of a match that attention could be differentiated for")
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
    why = f"{pairs.method.name} has no attention of words over patches that a match is read from"
    pairs.require("encode_image", "match_with_maps", why=why)
    return look_across(pairs.method, pairs.image, pairs.text)


def _weights(text: Encoded) -> Tensor:
    """(B, L, 1, 1) float32, even over real tokens, summing to 1. Weighed by products, which autocast leaves in full precision."""
    assert text.mask is not None
    mask = text.mask.float()
    return (mask / mask.sum(1, keepdim=True).clamp(min=1))[:, :, None, None]
