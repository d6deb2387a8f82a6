"""Maps of what a picture's own encoder attends to, by layer and head; rollout; and Grad-CAM of the similarity to a text or of a class.

The first two know nothing of a text: they are the same whatever is asked for, and on the pointing game they say what looking at
things at all is worth.
"""

from __future__ import annotations

import torch

from multiway.explain.attention import over_patches
from multiway.explain.evidence import class_evidence, text_evidence
from multiway.explain.pairs import CannotShow, Found, Pairs, chosen_heads, chosen_layers, on_grid
from multiway.explain.rollout import rollout
from multiway.explain.seen import Seen, see

__all__ = ["class_cam", "own_attention", "own_rollout", "similarity_cam"]


def own_attention(pairs: Pairs) -> Found:
    """Self-attention of the picture's own token over the patches (`attention.py`), of the last layer unless others are asked for.

    Raises:
        CannotShow: if no transformer reads the picture by itself.
    """
    seen = _seen(pairs)
    last = len(seen.blocks) - 1
    layers = chosen_layers(pairs.look.layers, len(seen.blocks), (last,))
    heads = chosen_heads(pairs.look.heads, seen.blocks[0].shape[1])
    try:
        maps = torch.stack([over_patches(block.float()) for block in seen.blocks], 1)
    except ValueError as error:
        raise CannotShow(str(error)) from error
    return Found(maps[:, layers][:, :, heads].mean((1, 2)), heads=maps, layers=layers)


def own_rollout(pairs: Pairs) -> Found:
    """Attention followed through all layers (`rollout.py`), of the chosen heads.

    Of a picture that is read by itself it is that of its own token. Where one transformer reads picture and text in one sequence from
    its first layer on (ViLT, VLMo, BEiT-3) and a text is given, it is that of each word over the patches; and of the whole text, that
    of its class token, from which such models match, or without a match (BEiT-3's pre-training) the mean over its words.

    Raises:
        CannotShow: if there is no transformer, or none whose layers all see all tokens.
    """
    joint = pairs.joint if pairs.texts is not None else None
    pairs.require("encode_image", why=f"{pairs.method.name} reads no pictures")
    seen = see(pairs.method, pairs.images)
    # A half that fuses what encoders gave (METER) begins where tokens are no longer about their patches alone.
    if joint is not None and seen.stack in (None, joint.stack):
        heads = list(chosen_heads(pairs.look.heads, joint.blocks[0].shape[1]))
        flow = rollout([block.float()[:, heads] for block in joint.blocks])
        tokens = on_grid(flow[:, : joint.words, joint.words :])
        weight = pairs.words.float() / pairs.words.sum(1, keepdim=True).clamp(min=1)
        whole = tokens[:, 0] if "match" in pairs.able else (weight[:, :, None, None] * tokens).sum(1)
        return Found(whole, tokens=tokens)
    _require_attention(seen)
    heads = list(chosen_heads(pairs.look.heads, seen.blocks[0].shape[1]))
    try:
        return Found(over_patches(rollout([block.float()[:, heads] for block in seen.blocks])))
    except ValueError as error:
        raise CannotShow(str(error)) from error


def similarity_cam(pairs: Pairs) -> Found:
    """Grad-CAM of the similarity of picture and text, as the contrastive loss has it (ITC): see `evidence.py`.

    Raises:
        CannotShow: if the two are not compared, or with something else than the places of a picture.
    """
    pairs.require_texts()
    pairs.require("compare", why=f"{pairs.method.name} compares no pictures with texts, each read by itself")
    found = text_evidence(pairs.method, pairs.images, pairs.text, pairs.look.layers, pairs.look.heads, pairs.others)
    if found is None:
        raise CannotShow(f"{pairs.method.name} does not compare texts with places of a picture that could be shown")
    name = "similarity above that of others" if pairs.look.against else "similarity"
    return Found(found[0], score=found[1], score_name=name)


def class_cam(pairs: Pairs) -> Found:
    """Grad-CAM of the class that a tuned classifier gives: see `evidence.py`.

    Raises:
        CannotShow: if there are no classes, or they are told from something else than the places of a picture.
    """
    pairs.require("classify", why=f"{pairs.method.name} sorts pictures into no classes")
    found = class_evidence(pairs.method, pairs.images, pairs.look.layers, pairs.look.heads)
    if found is None:
        raise CannotShow(f"{pairs.method.name} does not tell classes from places of a picture that could be shown")
    names = pairs.model.classes
    return Found(
        found[0],
        score=found[2],
        score_name="probability of its class",
        chosen=tuple(names[number] for number in found[1].tolist()),
    )


def _seen(pairs: Pairs) -> Seen:
    pairs.require("encode_image", why=f"{pairs.method.name} reads no pictures")
    seen = see(pairs.method, pairs.images)
    _require_attention(seen)
    return seen


def _require_attention(seen: Seen) -> None:
    if not seen.attends:
        why = "a convolutional network has none" if seen.features is not None else "no transformer reads it by itself"
        raise CannotShow(f"attention over a picture alone: {why}")
