"""Which places of a picture speak for a text, or for a class, in a model that reads pictures by themselves.

Where a transformer sees, the gradient goes to the attention of its last block, unless another is asked for (`nn/grad_cam.py`, the
mean over heads of A max(0, dS / dA)), of whose rows the picture's own is shown; where a convolutional network sees, to its last feature map
(`activation.py`). Models that read pictures and texts together have maps for each word (`across.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from multiway.abilities import Encoded, abilities_of
from multiway.config import ConfigError
from multiway.explain.activation import activation_map
from multiway.explain.attention import over_patches
from multiway.explain.pairs import chosen_heads, chosen_layers
from multiway.explain.scores import similarity
from multiway.explain.seen import Seen, see
from multiway.nn.grad_cam import grad_cam

__all__ = ["class_evidence", "text_evidence"]


def text_evidence(
    method: Any,
    images: Tensor,
    text: Encoded,
    layers: Sequence[int] = (),
    heads: Sequence[int] = (),
    others: Encoded | None = None,
) -> tuple[Tensor, Tensor] | None:
    """Places that make pictures like a text.

    Args:
        method: has `encode_image` and `compare`.
        images: (B, 3, H, W), normalised.
        text: one text for all, or one for each, as `encode_text` gave it, on the device of the pictures.
        layers: whose attention is weighed, the mean over them; the last by default.
        heads: of it; all by default.
        others: texts, the mean similarity to which is subtracted (`scores.py`): places that make pictures liker to the text than to them.

    Returns:
        (B, rows, columns) not negative, and (B,) similarities; None where nothing of a picture is computed before the text is
        there, or the text is compared with something else than these places.

    Raises:
        ConfigError: for a layer or head that there is none of.
    """
    if "compare" not in abilities_of(method):
        return None
    return _evidence(method, images, lambda seen: similarity(method, seen.encoded, text, others), layers, heads)


def class_evidence(
    method: Any, images: Tensor, layers: Sequence[int] = (), heads: Sequence[int] = ()
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Places that speak for the class that a tuned classifier gives each picture.

    Args:
        method: has `encode_image` and `classify`.
        images: (B, 3, H, W), normalised.
        layers, heads: as of `text_evidence`.

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

    found = _evidence(method, images, score, layers, heads)
    return None if found is None else (found[0], chosen[0], chosen[1])


def _evidence(
    method: Any, images: Tensor, score: Callable[[Seen], Tensor], layers: Sequence[int] = (), heads: Sequence[int] = ()
) -> tuple[Tensor, Tensor] | None:
    seen = see(method, images, graph=True)
    with torch.enable_grad():
        scores = score(seen)
        try:
            if seen.attends:
                numbers = chosen_layers(layers, len(seen.blocks), (len(seen.blocks) - 1,))
                some = chosen_heads(heads, seen.blocks[0].shape[1])
                maps = grad_cam(scores, [seen.blocks[number] for number in numbers], some)
                return torch.stack([over_patches(each) for each in maps]).mean(0), scores.detach()
            if seen.features is not None:
                return activation_map(seen.features, scores), scores.detach()
        except ConfigError:  # a layer or head that there is not, which is no matter of the model
            raise
        except ValueError:  # computed from something else than what was looked at
            return None
    return None
