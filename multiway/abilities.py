"""What a trained model can be asked to do, as small protocols.

A task states the abilities it needs and runs with every model that has them; it never asks which method the model is.
What encoding gives is in `encoded.py`.

Two levels share the same names. A *method* (an `nn.Module`) takes tensors that are already preprocessed. A *model*
(`hub.model.Model`, what `multiway.load` returns) adds the processor and takes pictures and strings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from multiway.encoded import Encoded, Tokens

__all__ = [
    "ABILITIES",
    "Answers",
    "CaptionScores",
    "Chooses",
    "Classifies",
    "Compares",
    "Encoded",
    "EncodesImages",
    "EncodesText",
    "FillsMask",
    "Fused",
    "Fuses",
    "FusesTwo",
    "Generates",
    "Judges",
    "LacksAbility",
    "Matches",
    "Points",
    "Query",
    "ScoresCaptions",
    "ShowsAttention",
    "Tokens",
    "abilities_of",
    "reader",
    "require",
]

Query = Literal[
    "image", "text"
]  # whose question a comparison answers: a picture's among texts, a text's among pictures


@runtime_checkable
class EncodesImages(Protocol):
    """Pictures to embeddings in the shared space, or to tokens where there is none (`Encoded`)."""

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) normalised pixels -> embeddings (B, D), D = 0 without a shared space."""


@runtime_checkable
class EncodesText(Protocol):
    """Texts to embeddings in the shared space, or to tokens where there is none (`Encoded`)."""

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids and (B, L) bool mask -> embeddings (B, D), D = 0 without a shared space."""


@runtime_checkable
class Compares(Protocol):
    """How like each picture is to each text, each encoded by itself."""

    def compare(self, image: Encoded, text: Encoded, query: Query = "image") -> Tensor:
        """(Bi, Bt) similarities of every picture with every text, higher for better.

        Args:
            image, text: what the encoders gave; Bi and Bt need not be equal.
            query: who asks. Where similarity is not symmetric (FILIP), a picture looking for its text and a text looking for
                its picture measure differently; elsewhere it makes no difference.
        """


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


@dataclass
class CaptionScores:
    """What a decoder says of given captions, each token after the first by those before it and the picture.

    Attributes:
        logp: (B, L) log-probability of each token, in nats; 0 at the first and at padding.
        best: (B, L) int64, the likeliest token in its place; -1 at the first and at padding.
    """

    logp: Tensor
    best: Tensor


@runtime_checkable
class ScoresCaptions(Protocol):
    """How likely a caption is, given a picture."""

    def caption_likelihood(self, image: Encoded | None, ids: Tensor, mask: Tensor) -> CaptionScores:
        """(B, L) token ids and (B, L) bool mask, caption i beside picture i, tokens kept; None for a method that sees none."""


@runtime_checkable
class Generates(Protocol):
    """Writes captions."""

    def generate(
        self,
        image: Encoded | None,
        settings: Any,
        prompts: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Texts for B pictures.

        Args:
            image: as `encode_image` gave them, tokens kept; None for a method that sees none.
            settings: `nn.generate.Generation`.
            prompts, prompt_mask: (B, L) token ids that the texts begin with, and (B, L) bool; None for the start token.
            generator: of random draws.

        Returns:
            `nn.generate.Texts`.
        """


@dataclass
class Fused:
    """Pictures and texts read together, row by row.

    Attributes:
        pooled: (B, `fused_width`) one vector for each pair: what the method's own matching reads, or its paper's classifiers.
        tokens: (B, L, W) the text's tokens, having seen the picture; None if they were not asked for.
        mask: (B, L) bool, True at tokens that are not padding; None when all count.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None


@runtime_checkable
class Fuses(Protocol):
    """A picture and a text as one thing: what classifiers of pairs stand on."""

    @property
    def fused_width(self) -> int:
        """Of `Fused.pooled`."""

    def fuse(self, image: Encoded | None, text: Encoded, tokens: bool = False) -> Fused:
        """Pair i of what the encoders gave, tokens kept.

        Args:
            image: pictures, one for each text. Their tokens may be those of two pictures, one after the other. None for a
                method that sees none.
            text: texts.
            tokens: whether the text's tokens are wanted too; without them the last block need not compute most of them.
        """


@runtime_checkable
class FusesTwo(Protocol):
    """Two pictures and a text as one thing, in one pass: what classifiers of two pictures stand on."""

    @property
    def fused_width(self) -> int:
        """Of `Fused.pooled`."""

    def fuse_two(self, left: Encoded, right: Encoded, text: Encoded) -> Fused:
        """Row i of what the encoders gave, tokens kept: text i with picture i on either side."""


@runtime_checkable
class Answers(Protocol):
    """Answers questions about pictures from a list."""

    @property
    def answers(self) -> tuple[str, ...]:
        """What it chooses among."""

    def answer(self, image: Encoded, text: Encoded) -> Tensor:
        """(B, A) scores of each answer to question i about picture i, tokens kept."""


@runtime_checkable
class Judges(Protocol):
    """Judges sentences by one picture, or by two."""

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Names of the classes."""

    def judge(self, images: Sequence[Encoded], text: Encoded) -> Tensor:
        """(B, K) scores of each verdict on sentence i, by the i-th picture of each of `images`, tokens kept."""


@runtime_checkable
class Chooses(Protocol):
    """Chooses among texts the one that is right of a picture."""

    def choose(self, image: Encoded, text: Encoded) -> Tensor:
        """(B,) score of text i with picture i, tokens kept; of several with one picture the highest is chosen."""


@runtime_checkable
class Points(Protocol):
    """Finds the region of a picture that words mean."""

    def point(self, image: Encoded, text: Encoded, boxes: Tensor) -> Tensor:
        """(B, K) scores of regions.

        Args:
            image, text: tokens kept.
            boxes: (B, K, 4) left, top, right, bottom as shares of the picture.
        """


@runtime_checkable
class Classifies(Protocol):
    """Sorts pictures into classes that it was tuned for."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    def classify(self, image: Encoded) -> Tensor:
        """(B, K) scores of each class for each picture, tokens kept."""


# The one list of abilities: name of the method that provides it -> its protocol.
ABILITIES: dict[str, type] = {
    "encode_image": EncodesImages,
    "encode_text": EncodesText,
    "compare": Compares,
    "match": Matches,
    "match_with_maps": ShowsAttention,
    "fuse": Fuses,
    "fuse_two": FusesTwo,
    "fill_mask": FillsMask,
    "caption_likelihood": ScoresCaptions,
    "generate": Generates,
    "answer": Answers,
    "judge": Judges,
    "choose": Chooses,
    "point": Points,
    "classify": Classifies,
}


class LacksAbility(TypeError):
    """A task was asked of a model that is not able to do it.

    Attributes:
        missing: names of the abilities that it lacks.
    """

    def __init__(self, message: str, missing: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


def abilities_of(thing: object) -> tuple[str, ...]:
    """Names of the abilities that an object has; a method may hide some by its config through `abilities()`."""
    own = getattr(thing, "abilities", None)
    if callable(own):
        return tuple(own())
    return tuple(name for name, protocol in ABILITIES.items() if isinstance(thing, protocol))


def reader(method: Any, side: Literal["image", "text"], tokens: Tokens) -> Callable[..., Encoded]:
    """`encode_image` or `encode_text` of a method; of one whose fused encoder starts below its embeddings (VLMo), where tokens alone
    are asked for, `image_to_fuse` or `text_to_fuse`, which runs no tower for an embedding that nobody reads."""
    short = getattr(method, f"{side}_to_fuse", None) if tokens == "only" else None
    found: Callable[..., Encoded] = short or getattr(method, f"encode_{side}")
    return found


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
        name = getattr(getattr(thing, "method", thing), "name", type(thing).__name__)
        raise LacksAbility(
            f"task `{task}` needs {', '.join(missing)}, which {name} lacks (it has: {', '.join(has) or 'none'}){remedy}",
            missing,
        )
