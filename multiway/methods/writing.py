"""What every method that writes captions does alike: which tokens count, what it says of given ones, how it begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from multiway.abilities import CaptionScores
from multiway.batch import DataInfo
from multiway.nn.generate import Cached, Generation, Recomputed, Texts, generate
from multiway.nn.text import TextConfig

__all__ = ["Cached", "WriterConfig", "Writing", "begin_with", "caption_scores", "resolved", "to_be_written", "write"]


class WriterConfig(Protocol):
    """What `resolved` fills in: the text's sizes, and the ids of its start and end tokens and of padding, -1 where open."""

    @property
    def text(self) -> TextConfig: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def pad(self) -> int: ...


C = TypeVar("C", bound=WriterConfig)


def begin_with(ids: Tensor, start: int) -> Tensor:
    """(B, L) ids with another first token, which tells the mode."""
    return ids.masked_fill(torch.arange(ids.shape[1], device=ids.device) == 0, start)


def resolved(config: C, data: DataInfo) -> C:
    """A config that has the fields of `WriterConfig`, with vocabulary, context and special ids from the data; what was given
    is kept.
    """
    given = config.text
    text = replace(given, vocabulary=given.vocabulary or data.vocabulary, context=given.context or data.context)
    end = data.special.get("eos", 0) if config.end < 0 else config.end
    start = data.special.get("bos", end) if config.start < 0 else config.start
    pad = data.special.get("pad", end) if config.pad < 0 else config.pad
    return replace(config, text=text, start=start, end=end, pad=pad)  # type: ignore[type-var]


def to_be_written(mask: Tensor) -> Tensor:
    """(B, L) bool, True at the tokens that a decoder is asked for: all real ones but the first, which it is given."""
    return torch.cat([torch.zeros_like(mask[:, :1]), mask[:, 1:]], 1)


def caption_scores(logits: Tensor, ids: Tensor, mask: Tensor) -> CaptionScores:
    """What logits say of given captions.

    Args:
        logits: (P, V), in the order of `to_be_written(mask).nonzero()`.
        ids, mask: (B, L).
    """
    logp = logits.float().log_softmax(-1)
    told, best = torch.zeros(ids.shape, device=ids.device), torch.full_like(ids, -1)
    wanted = to_be_written(mask)
    told[wanted] = logp.gather(1, ids[wanted][:, None])[:, 0]
    best[wanted] = logp.argmax(1)
    return CaptionScores(told, best)


@dataclass(frozen=True)
class Writing:
    """Texts about to be written.

    Attributes:
        decoding: a fresh one, a text for each picture.
        start, end, pad: ids of what begins a text and ends it, and of what fills up after its end.
        context: greatest number of tokens.
        prompted: whether the first call of `decoding.step` may be handed more than the start token; where another part of the model
            reads what texts begin with, a `Writing` is of certain prompts.
    """

    decoding: Cached | Recomputed
    start: int
    end: int
    pad: int
    context: int
    prompted: bool = True


def write(
    writing: Writing,
    settings: Generation,
    prompts: Tensor | None = None,
    prompt_mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Texts:
    """`nn.generate.generate`, in texts no longer than the method's positions reach; of the start token alone without prompts."""
    if prompts is None:
        rows = writing.decoding.memory
        prompts = torch.full((len(rows), 1), writing.start, device=rows.device)
    settings = replace(settings, max_length=min(settings.max_length, writing.context))
    ends = {"end": writing.end, "pad": writing.pad}
    return generate(writing.decoding, prompts, settings, **ends, prompt_mask=prompt_mask, generator=generator)
