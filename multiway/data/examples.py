"""What every annotated data set looks like to the tasks: examples that point at pictures, each of one kind.

A source (`source.py`) is pictures with captions. A benchmark asks something of pictures: a question, a statement about two of
them, a region that is meant. Its reader turns the original annotation files into `Examples`, one split of one task; the
pictures stand apart, so that one that is asked about ten times is decoded and encoded once.

Test sets often come without answers. Such examples have label -1, no answers, no box; tasks then write predictions and no score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

from PIL import Image

__all__ = [
    "Asked",
    "Box",
    "Chosen",
    "Example",
    "Examples",
    "HasNotes",
    "Judged",
    "Kind",
    "KnowsAnswered",
    "Pictures",
    "Pointed",
]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the picture's width and height."""

Kind = Literal["asked", "judged", "chosen", "pointed"]


@dataclass(frozen=True)
class Example:
    """What all kinds have.

    Attributes:
        key: unique within the split, as the benchmark's own submission format calls it (`question_id`, `pairID`, ...).
        pictures: rows of `Examples.pictures` that it is about: one, or two in their order.
        text: question, hypothesis, statement or expression; never empty.
        where: file and row, for messages: `v2_OpenEnded_mscoco_val2014_questions.json, question 262148000`.
        group: what kind of example this is (`yes/no`, `2 objects`); tasks report each group by itself. Empty for none.
    """

    key: str
    pictures: tuple[int, ...]
    text: str
    where: str = ""
    group: str = ""


@dataclass(frozen=True)
class Asked(Example):
    """A question with free answers (VQA, GQA).

    Attributes:
        answers: as people gave them, repeated as often as given; ten in VQA, one in GQA; empty where they are withheld.
    """

    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged(Example):
    """A sentence to be judged: entailed by a picture or not (SNLI-VE), true of two pictures or not (NLVR2).

    Attributes:
        label: of `Examples.labels`; -1 where it is withheld.
        twin: examples that share it belong together and are right only together (NLVR2's sentences, Winoground's); empty for none.
    """

    label: int = -1
    twin: str = ""


@dataclass(frozen=True)
class Chosen(Example):
    """A question with a choice of answers (VCR), as words.

    Attributes:
        choices: at least two, none empty.
        label: which of them is right; -1 where it is withheld.
        reasons: further choices, of reasons for the right answer; empty where none are asked for.
        reason: which of them is right; -1 where it is withheld or there are none.
    """

    choices: tuple[str, ...] = ()
    label: int = -1
    reasons: tuple[str, ...] = ()
    reason: int = -1


@dataclass(frozen=True)
class Pointed(Example):
    """Words that mean a region of the picture (RefCOCO, phrase grounding).

    Attributes:
        boxes: of the region; phrases may mean several. Empty where it is withheld.
        candidates: regions to choose from; empty where none are given.
        sentence: that the words are a part of (phrase grounding); empty where they stand alone.
        start: their first character in `sentence`; -1 where there is none.
    """

    boxes: tuple[Box, ...] = ()
    candidates: tuple[Box, ...] = ()
    sentence: str = ""
    start: int = -1


E_co = TypeVar("E_co", bound=Example, covariant=True)


@runtime_checkable
class Pictures(Protocol):
    """Pictures by number; every `Source` is such a thing."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """The decoded picture, in its own size and mode.

        Raises:
            BadRow: if it cannot be read.
        """
        ...


@runtime_checkable
class Examples(Protocol[E_co]):
    """One split of one benchmark.

    Attributes:
        name: of the data set as the command line has it.
        split: `train`, `val`, `test` or one of its own (`testA`).
        kind: of all its examples.
        labels: names of the classes of judged examples, in order; empty for others.
        pictures: that the examples point at.
        rejected: examples that were left out on opening, each with its place and reason.
        fingerprint: hash of what the examples are (annotations, not pixels).
    """

    name: str
    split: str
    kind: Kind
    labels: tuple[str, ...]
    pictures: Pictures
    rejected: Sequence[object]
    fingerprint: str

    def __len__(self) -> int: ...

    def example(self, index: int) -> E_co:
        """One example; reads no picture."""
        ...


@runtime_checkable
class HasNotes(Protocol):
    """Examples of which something must be said beside every figure that is measured on them.

    Attributes:
        notes: such as `1,000 of 214,354 questions: a part of the public split`; empty where all is as published.
    """

    notes: tuple[str, ...]


@runtime_checkable
class KnowsAnswered(Protocol):
    """Examples that know, without one being looked at, whether all have their answers: what a procedural world does.

    Attributes:
        answered: True where none is withheld. Whoever leaves out examples without an answer need not go through a million.
    """

    answered: bool
