"""The one entrance to generation."""

from __future__ import annotations

import torch
from torch import Tensor

from multiway.nn.generate.beam import beam_search
from multiway.nn.generate.decoding import Decoding
from multiway.nn.generate.one_by_one import one_by_one
from multiway.nn.generate.settings import Generation
from multiway.nn.generate.texts import Prompts, Texts

__all__ = ["generate"]


@torch.no_grad()
def generate(
    decoding: Decoding,
    prompts: Tensor,
    settings: Generation,
    *,
    end: int,
    pad: int,
    prompt_mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Texts:
    """Write texts.

    Texts end at different steps; those that have ended leave the batch and cost nothing further.

    Args:
        decoding: a fresh one, with as many texts as prompts.
        prompts: (P, L) ids that the texts begin with, the start token first, padded on the right.
        settings: how.
        end: id of the end token.
        pad: id that fills what follows it.
        prompt_mask: (P, L) bool, True at tokens of the prompts; None when all are.
        generator: draws of `nucleus`; the same state gives the same texts. None is torch's own.

    Returns:
        P x `settings.texts` texts.

    Raises:
        ValueError: if a prompt is empty or leaves no room below `max_length`.
    """
    start = Prompts(prompts, prompt_mask)
    if int(start.lengths.max()) >= settings.max_length:
        raise ValueError(
            f"a prompt of {int(start.lengths.max())} tokens leaves no room in texts of {settings.max_length}; raise max_length or "
            "shorten the prompt"
        )
    if settings.strategy == "beam":
        return beam_search(decoding, start, settings, end, pad)
    return one_by_one(decoding, start, settings, end, pad, generator)
