"""What a trained model can be asked to do, as small protocols.

A task states the abilities it needs and runs with every model that has them; it never asks which method the model is.
This module imports nothing of ours.

Two levels share the same names. A *method* (an `nn.Module`) takes tensors that are already preprocessed. A *model*
(`hub.model.Model`, what `multiway.load` returns) adds the processor and takes pictures and strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = [
    "ABILITIES",
    "Encoded",
    "EncodesImages",
    "EncodesText",
    "FillsMask",
    "LacksAbility",
    "Matches",
    "ShowsAttention",
    "abilities_of",
    "require",
]


@dataclass
class Encoded:
    """One side of a batch, encoded.

    Attributes:
        embedding: (B, D) L2-normalised, in the space that both modalities share: dot products are cosines.
        tokens: (B, N, W) last-layer token features, before pooling; None if not kept.
        mask: (B, N) bool, True at tokens that are not padding; None when all count.
        ids: (B, N) token ids for text; None for images.
    """

    embedding: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    ids: Tensor | None = None

    @staticmethod
    def cat(parts: Sequence[Encoded]) -> Encoded:
        """Several batches, one after another. Tokens of texts are padded to the longest, and masked there."""
        embedding = torch.cat([part.embedding for part in parts])
        if any(part.tokens is None for part in parts):
            return Encoded(embedding)
        length = max(part.tokens.shape[1] for part in parts if part.tokens is not None)

        def join(name: str, empty: float) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            if any(tensor is None for tensor in tensors):
                return None
            longest = [t.new_full((len(t), length - t.shape[1], *t.shape[2:]), empty) for t in tensors]
            return torch.cat([torch.cat([t, more], 1) for t, more in zip(tensors, longest, strict=True)])

        return Encoded(embedding, join("tokens", 0), join("mask", False), join("ids", 0))

    def rows(self, index: Tensor) -> Encoded:
        """The rows numbered by `index` (n,), repeated as often as they occur in it.

        Texts are cut to the longest of them, so that a batch of short texts computes nothing for long ones.
        """
        mask = None if self.mask is None else self.mask[index]
        stop = None if mask is None else int(mask.sum(1).max()) if len(index) else 0

        def pick(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[index][:, :stop]

        return Encoded(
            self.embedding[index], pick(self.tokens), None if mask is None else mask[:, :stop], pick(self.ids)
        )

    def to(self, device: torch.device | str) -> Encoded:
        """The same on another device."""
        tokens, mask, ids = (None if t is None else t.to(device) for t in (self.tokens, self.mask, self.ids))
        return Encoded(self.embedding.to(device), tokens, mask, ids)


@runtime_checkable
class EncodesImages(Protocol):
    """Pictures to embeddings in the shared space."""

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) normalised pixels -> embeddings (B, D)."""


@runtime_checkable
class EncodesText(Protocol):
    """Texts to embeddings in the shared space."""

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids and (B, L) bool mask -> embeddings (B, D)."""


@runtime_checkable
class Matches(Protocol):
    """Whether a picture and a text belong together, seen together (ITM)."""

    def match(self, image: Encoded, text: Encoded) -> Tensor:
        """(B,) log-odds that picture i and text i are a pair, from what the encoders gave with their tokens kept."""


@runtime_checkable
class ShowsAttention(Protocol):
    """Where a text's tokens look in the picture while the two are matched."""

    def match_with_maps(self, image: Encoded, text: Encoded) -> tuple[Tensor, list[Tensor]]:
        """As `match`, and per fused block (B, heads, L, N) attention of text tokens over the picture's tokens, in the graph."""


@runtime_checkable
class FillsMask(Protocol):
    """Guesses masked words of a text, seeing the picture."""

    def fill_mask(self, image: Encoded | None, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """Logits of masked words.

        Args:
            image: pictures as `encode_image` gave them, tokens kept; None asks what the words alone say.
            ids, mask: (B, L) token ids with masks in them, and (B, L) bool.
            at: (B, L) bool, the P positions to be guessed.

        Returns:
            (P, vocabulary), in the order of `at.nonzero()`.
        """


# The one list of abilities: name of the method that provides it -> its protocol.
ABILITIES: dict[str, type] = {
    "encode_image": EncodesImages,
    "encode_text": EncodesText,
    "match": Matches,
    "match_with_maps": ShowsAttention,
    "fill_mask": FillsMask,
}


class LacksAbility(TypeError):
    """A task was asked of a model that is not able to do it."""


def abilities_of(thing: object) -> tuple[str, ...]:
    """Names of the abilities that an object has; a method may hide some by its config through `abilities()`."""
    own = getattr(thing, "abilities", None)
    if callable(own):
        return tuple(own())
    return tuple(name for name, protocol in ABILITIES.items() if isinstance(thing, protocol))


def require(thing: object, needs: Iterable[str], task: str, able: Sequence[str] = ()) -> None:
    """Refuse, clearly, a model that cannot do what a task needs.

    Args:
        needs: names of abilities.
        task: what asks, for the message.
        able: names of methods that have what is missing, for the message.

    Raises:
        LacksAbility: naming what is missing and which methods have it.
    """
    has = abilities_of(thing)
    missing = [need for need in needs if need not in has]
    if missing:
        remedy = f"; methods that have it: {', '.join(able)}" if able else ""
        raise LacksAbility(
            f"task `{task}` needs {', '.join(missing)}, which {type(thing).__name__} lacks (it has: {', '.join(has) or 'none'}){remedy}"
        )
