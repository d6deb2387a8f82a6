"""Which places of a picture speak for a text, or for a class, in a model that reads pictures by themselves.

Where a transformer sees, the gradient goes to the attention of its last block (`nn/grad_cam.py`, the mean over heads of
A max(0, dS / dA)), of whose rows the picture's own is shown; where a convolutional network sees, to its last feature map
(`activation.py`). Models that read pictures and texts together have maps for each word (`words.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multiway.abilities import Encoded, abilities_of
from multiway.explain.activation import activation_map
from multiway.explain.attention import over_patches
from multiway.explain.seen import Seen, see
from multiway.nn.grad_cam import grad_cam

__all__ = ["class_evidence", "text_evidence"]


def text_evidence(method: Any, images: Tensor, text: Encoded) -> tuple[Tensor, Tensor] | None:
    """Places that make pictures like a text.

    Args:
        method: has `encode_image` and `compare`.
        images: (B, 3, H, W), normalised.
        text: one text, as `encode_text` gave it, on the device of the pictures.

    Returns:
        (B, rows, columns) not negative, and (B,) similarities; None where nothing of a picture is computed before the text is
        there, or the text is compared with something else than these places.
    """
    if "compare" not in abilities_of(method):
        return None
    return _evidence(method, images, lambda seen: _similarity(method, seen.encoded, text))


def class_evidence(method: Any, images: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Places that speak for the class that a tuned classifier gives each picture.

    Args:
        method: has `encode_image` and `classify`.
        images: (B, 3, H, W), normalised.

    Returns:
        (B, rows, columns) not negative, (B,) numbers of the classes and (B,) their probabilities; None as of `text_evidence`.
    """
    if "classify" not in abilities_of(method):
        return None
    chosen: list[Tensor] = []

    def score(seen: Seen) -> Tensor:
        scores = method.classify(seen.encoded).float()
        best = scores.argmax(1)
        chosen[:] = [best, scores.detach().softmax(1).gather(1, best[:, None])[:, 0]]
        return scores.gather(1, best[:, None])[:, 0]  # type: ignore[no-any-return]

    found = _evidence(method, images, score)
    return None if found is None else (found[0], chosen[0], chosen[1])


def _similarity(method: Any, image: Encoded, text: Encoded) -> Tensor:
    if image.has_embedding:
        return image.embedding.float() @ text.embedding[0].float()
    rows = [
        method.compare(image.rows(torch.tensor([row], device=text.embedding.device)), text)
        for row in range(len(image.embedding))
    ]
    return torch.cat(rows)[:, 0]


def _evidence(method: Any, images: Tensor, score: Any) -> tuple[Tensor, Tensor] | None:
    seen = see(method, images, graph=True)
    with torch.enable_grad():
        scores = score(seen)
        try:
            if seen.attends:
                (map_,) = grad_cam(scores, [seen.blocks[-1]])
                return over_patches(map_), scores.detach()
            if seen.features is not None:
                return activation_map(seen.features, scores), scores.detach()
        except ValueError:  # computed from something else than what was looked at
            return None
    return None
