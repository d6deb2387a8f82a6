"""Beam search: the likeliest texts, a few at a time.

Of each picture's K beams and V tokens the 2K likeliest continuations are taken; those among the first K that end are kept
with their score, log p / n^penalty, n the tokens after the prompt; the K likeliest of the others go on. A picture is done
when none of its beams can be expected to pass the worst of K ended texts. As in `transformers`, to the token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from multiway.nn.generate.decoding import Decoding
from multiway.nn.generate.rules import penalise
from multiway.nn.generate.settings import Generation
from multiway.nn.generate.texts import Prompts, Texts

__all__ = ["beam_search"]

NEVER = -1.0e9  # finite: sums and quotients of it stay numbers


def _pick(tensor: Tensor, index: Tensor) -> Tensor:
    """tensor[b, index[b, k]]: (B, K, ...), (B, K') -> (B, K', ...)."""
    return tensor[torch.arange(len(tensor), device=tensor.device)[:, None], index]


def beam_search(decoding: Decoding, prompts: Prompts, settings: Generation, end: int, pad: int) -> Texts:
    """The `settings.texts` best texts for each prompt; see `generate`."""
    beams, longest, length = settings.beams, settings.max_length, prompts.shortest
    # The prompt is read once for each picture, not once for each beam.
    logits = decoding.step(prompts.ids[:, :length])
    device, rows = logits.device, len(prompts.ids)
    decoding.select(torch.arange(rows, device=device).repeat_interleave(beams))
    logits = logits.repeat_interleave(beams, 0)

    running = torch.full((rows, beams, longest), pad, device=device)
    running[:, :, :length] = prompts.ids[:, None, :length]
    scores = torch.zeros(rows, beams, device=device)
    scores[:, 1:] = NEVER  # equal beams would bring equal texts
    best = running.clone()
    best_scores = torch.full((rows, beams), NEVER, device=device)
    best_lengths = torch.full((rows, beams), length, device=device)
    ended = torch.zeros(rows, beams, dtype=torch.bool, device=device)
    open_ = torch.arange(rows, device=device)  # pictures that are not done
    order = torch.arange(beams, device=device)

    while True:
        logp = penalise(logits.float().log_softmax(1), running[open_].flatten(0, 1)[:, :length], settings, end)
        vocabulary = logp.shape[1]
        logp = logp.view(len(open_), beams, vocabulary)
        forced = prompts.forced(length, open_)
        if forced is not None:
            only = torch.full_like(logp, -torch.inf).scatter(2, forced[1][:, None, None].expand(-1, beams, 1), 0.0)
            logp = torch.where(forced[0][:, None, None], only, logp)
        total = (logp + scores[open_][:, :, None]).flatten(1)
        top, index = total.topk(2 * beams)
        source, token = index // vocabulary, index % vocabulary
        texts = _pick(running[open_], source)
        texts[:, :, length] = token
        length += 1

        ends = (token == end) if forced is None else (token == end) & ~forced[0][:, None]
        ends = ends | (length == longest)
        written = (length - prompts.lengths[open_, None]).clamp(min=1)
        # Only what is among the first K may end; the rest stands by, so that K beams are left to go on.
        ending = ends & (torch.arange(2 * beams, device=device) < beams)
        found = top / written**settings.length_penalty + ~ending * NEVER
        merged = torch.cat([best_scores[open_], found], 1)
        kept = merged.topk(beams)[1]
        best[open_] = _pick(torch.cat([best[open_], texts], 1), kept)
        best_scores[open_] = _pick(merged, kept)
        best_lengths[open_] = _pick(torch.cat([best_lengths[open_], torch.full_like(token, length)], 1), kept)
        ended[open_] = _pick(torch.cat([ended[open_], ending], 1), kept)
        if length == longest:
            break

        onward = (top + ends * NEVER).topk(beams)[1]
        running[open_] = _pick(texts, onward)
        scores[open_] = _pick(top + ends * NEVER, onward)
        hope = scores[open_, :1] / written**settings.length_penalty
        worst = torch.where(ended[open_], best_scores[open_].amin(1, keepdim=True), NEVER)
        stays = (hope > worst).any(1)
        if settings.early_stopping:
            stays &= ~ended[open_].all(1)
        lines = torch.arange(len(open_), device=device)[stays, None] * beams + _pick(source, onward)[stays]
        last = _pick(token, onward)[stays].flatten()
        open_ = open_[stays]
        if len(open_) == 0:
            break
        if not bool((order == _pick(source, onward)[stays]).all()) or not bool(stays.all()):
            decoding.select(lines.flatten())
        logits = decoding.step(last[:, None])

    count = settings.texts
    lengths = best_lengths[:, :count].flatten()
    cut = int(lengths.max())
    mask = torch.arange(cut, device=device) < lengths[:, None]
    ids = torch.where(mask, best[:, :count, :cut].flatten(0, 1), pad)
    return Texts(ids, mask, best_scores[:, :count].flatten())
