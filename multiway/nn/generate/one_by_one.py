"""Greedy and nucleus: texts that are written token by token, none knowing of the others."""

from __future__ import annotations

import torch

from multiway.nn.generate.decoding import Decoding
from multiway.nn.generate.rules import nucleus, penalise
from multiway.nn.generate.settings import Generation
from multiway.nn.generate.texts import Prompts, Texts

__all__ = ["one_by_one"]

DROP = (
    8  # ended texts leave the batch once they are one in so many: leaving costs a copy of the others' keys and values
)


def one_by_one(
    decoding: Decoding, prompts: Prompts, settings: Generation, end: int, pad: int, generator: torch.Generator | None
) -> Texts:
    """Write `settings.texts` texts for each prompt; see `generate`."""
    copies, length = settings.texts, prompts.shortest
    logits = decoding.step(prompts.ids[:, :length])
    device = logits.device
    whose = torch.arange(len(prompts.ids), device=device).repeat_interleave(copies)
    if copies > 1:
        decoding.select(whose)
        logits = logits[whose]
    ids = torch.full((len(whose), settings.max_length), pad, device=device)
    ids[:, :length] = prompts.ids[whose, :length]
    lengths = torch.full((len(whose),), length, device=device)
    scores = torch.zeros(len(whose), device=device)
    draws = None
    if settings.strategy == "nucleus":
        # Numbers belong to a text and a position, so that it does not matter which other texts have ended.
        origin = generator.device if generator is not None else torch.device("cpu")
        shape = (len(whose), settings.max_length)
        draws = torch.rand(shape, generator=generator, dtype=torch.float64, device=origin).to(device)
    alive = torch.arange(len(whose), device=device)  # texts in the batch
    writing = torch.ones(len(whose), dtype=torch.bool, device=device)  # of those, the ones that have not ended
    while True:
        logits = logits.float()
        allowed = penalise(logits, ids[alive, :length], settings, end)
        if draws is None:
            token = allowed.argmax(1)
        else:
            token = nucleus(allowed, draws[alive, length], settings.top_p, settings.temperature)
        gain = logits.log_softmax(1).gather(1, token[:, None])[:, 0]
        forced = prompts.forced(length, whose[alive])
        if forced is not None:
            token, gain = torch.where(forced[0], forced[1], token), torch.where(forced[0], 0.0, gain)
        rows = alive[writing]
        ids[rows, length] = token[writing]
        scores[rows] += gain[writing]
        lengths[rows] += 1
        length += 1
        ended = (token == end) if forced is None else (token == end) & ~forced[0]
        writing = writing & ~ended
        left = int(writing.sum())
        if left == 0 or length == settings.max_length:
            break
        if (len(alive) - left) * DROP >= len(alive):
            stay = writing.nonzero()[:, 0]
            decoding.select(stay)
            alive, token, writing = alive[stay], token[stay], writing[stay]
        logits = decoding.step(token[:, None])
    mask = torch.arange(length, device=device) < lengths[:, None]
    return Texts(ids[:, :length], mask, scores)
