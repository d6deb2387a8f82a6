"""Captions as strings: prompts spelt out in tokens, what a method writes spelt back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multiway.abilities import Encoded, require
from multiway.data.tokenizer import Tokenizer
from multiway.nn.generate import Generation, Texts

if TYPE_CHECKING:
    from multiway.hub.model import Model

__all__ = ["spelt", "write_captions"]


def write_captions(
    model: Model, images: Encoded | None, settings: Generation, prompts: Sequence[str] | None, seed: int
) -> list[list[str]]:
    """For each picture `settings.texts` captions; see `Model.generate`, which this is."""
    require(model.method, ("generate",), "generate")
    rows = len(prompts or "1") if images is None else len(images.embedding)
    lost = images is not None and images.tokens is None
    if lost or (prompts is not None and len(prompts) != rows):
        given = "no" if prompts is None else len(prompts)
        raise ValueError(
            f"generate takes pictures encoded with tokens=True and a prompt for each or none; given {rows} pictures, tokens "
            f"kept: {not lost}, {given} prompts"
        )
    tokenizer = model.processor.tokenizer
    if tokenizer is None:
        raise TypeError("this model's processor has no tokeniser, so that its texts cannot be spelt")
    write: Callable[..., Texts] = model.method.generate  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(seed)

    def written(some: Tensor) -> list[str]:
        ids, mask = None, None
        if prompts is not None:
            words = model.processor.texts([prompts[row] for row in some.tolist()])
            # A prompt goes on where its end token would be.
            mask = words.mask & (words.ids != tokenizer.special["eos"])
            ids, mask = words.ids.to(model.device), mask.to(model.device)
        shown = None if images is None else images.rows(some).to(model.device)
        return spelt(tokenizer, write(shown, settings, ids, mask, generator))

    captions = [text for part in model.by_rows(rows, written) for text in part]
    return [captions[i : i + settings.texts] for i in range(0, len(captions), settings.texts)]


def spelt(tokenizer: Tokenizer, texts: Texts) -> list[str]:
    """What a decoder wrote, as strings: padding and ids beyond the tokeniser's left out."""
    lines = zip(texts.ids.tolist(), texts.mask.tolist(), strict=True)
    return [
        tokenizer.decode([i for i, real in zip(row, reals, strict=True) if real and i < len(tokenizer)])
        for row, reals in lines
    ]
