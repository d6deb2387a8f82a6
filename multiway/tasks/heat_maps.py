"""Heat maps of a picture: where a model looks when it finds that a text fits, by Grad-CAM over its cross-attention.

Works with every method that has `match_with_maps`: cross-attention (ALBEF, BLIP, METER) or the part of joint attention that goes
from words to patches (ViLT, METER's merged form).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multiway.abilities import Encoded
from multiway.nn.grad_cam import chosen_block, grad_cam

__all__ = ["heat_maps"]

_FRONT = 4  # tokens in front of the patches at most: class and distillation tokens, registers


def heat_maps(
    model: Any, images: Encoded, texts: Encoded, block: int | None = None, special: Sequence[int] = ()
) -> Tensor:
    """Where each text was found in its picture: (B, rows, columns) of patches, not negative, float32 on the CPU.

    Args:
        model: with `method`, `device` and `by_rows`, as `hub.model.Model` has them.
        images, texts: B each, tokens kept.
        block: whose attention is looked at, of those that fuse; see `nn.grad_cam.chosen_block`, also for None.
        special: ids of tokens that do not count.

    Raises:
        ValueError: for a block that there is none of, or tokens that are no square of patches.
    """

    def ask(rows: Tensor) -> Tensor:
        # `by_rows` runs without gradients, which a map by gradients cannot do without.
        with torch.inference_mode(False), torch.enable_grad():
            image, text = images.rows(rows).to(model.device), texts.rows(rows).to(model.device)
            odds, maps = model.method.match_with_maps(image, text)
            (found,) = grad_cam(odds, [maps[chosen_block(block, len(maps))]])
        counts = torch.ones(found.shape[:2], device=found.device) if text.mask is None else text.mask.float()
        if special and text.ids is not None:
            counts = counts * ~torch.isin(text.ids, torch.tensor(special, device=found.device))
        counts = counts / counts.sum(1, keepdim=True).clamp(min=1)
        return (counts[:, :, None] * found).sum(1).cpu()

    heat = torch.cat(model.by_rows(len(texts.embedding), ask))
    side = int(heat.shape[1] ** 0.5)
    if heat.shape[1] - side * side > _FRONT:
        raise ValueError(f"{heat.shape[1]} tokens of a picture are no square of patches; heat maps need one")
    return heat[:, heat.shape[1] - side * side :].unflatten(1, (side, side))
