"""The words of the scenes' captions, and how a thing is called by some of them.

A colour, a shape and a relation have one word each. Sizes and textures have synonyms, of which the first is the plain
way to say it. A texture `plain` is never said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from multiway.data.scenes.graph import COLOURS, SHAPES, SIZES, TEXTURES, Thing

__all__ = [
    "CLASSES", "NUMBERS", "WORD_CLASSES", "Words", "describe", "distinguishing", "plural", "say", "with_article", "words_of",
]  # fmt: skip

CLASSES = ("size", "colour", "texture", "shape")
"""What can be said of a thing, in the order in which English says it; the order of `Thing.words`."""

Draw = Callable[[], float]

_SYNONYMS = {
    "small": ("small", "little"),
    "large": ("large", "big"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "checked": ("checked", "checkered"),
}

NUMBERS = ("no", "one", "two", "three", "four")

_PLURALS = {**{shape: f"{shape}s" for shape in SHAPES}, "cross": "crosses", "shape": "shapes"}
_SINGULARS = {many: one for one, many in _PLURALS.items()}


def _said(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(way for word in words if word != "plain" for way in _SYNONYMS.get(word, (word,)))


WORD_CLASSES: dict[str, tuple[str, ...]] = {
    "size": _said(SIZES),
    "colour": _said(COLOURS),
    "texture": _said(TEXTURES),
    "shape": (*SHAPES, *(_PLURALS[shape] for shape in SHAPES)),
    "relation": ("left", "right", "above", "below"),
    "number": (*NUMBERS, "none"),
}
"""Every word of the captions that says something, by its class."""

_GRAPH_WORDS: tuple[Iterable[str], ...] = (SIZES, COLOURS, TEXTURES, SHAPES)  # in the order of CLASSES

# Any way to say a word -> its class and the graph's own word.
_MEANING: dict[str, tuple[str, str]] = {
    way: (kind, word) for kind, own in zip(CLASSES, _GRAPH_WORDS, strict=True) for word in own for way in _said([word])
} | {_PLURALS[shape]: ("shape", shape) for shape in SHAPES}


class Words(NamedTuple):
    """What is said of a thing; None where nothing is."""

    size: str | None = None
    colour: str | None = None
    texture: str | None = None
    shape: str | None = None

    def fit(self, words: Sequence[str | None]) -> bool:
        """Whether a thing of these words is (or may be called) what is said."""
        return all(said is None or said == true for said, true in zip(self, words, strict=True))


def words_of(text: str) -> Words:
    """What a description says: `a big red shape` -> Words("large", "red"). Other words are passed over."""
    return Words(**dict(_MEANING[word] for word in text.split() if word in _MEANING))


def say(word: str, draw: Draw | None = None) -> str:
    """A way to say a word of the graph: the plain one, or one drawn by uniform numbers."""
    ways = _SYNONYMS.get(word)
    if ways is None:
        return word
    return ways[0] if draw is None else ways[int(draw() * len(ways))]


def describe(thing: Thing, words: Collection[str] = CLASSES, draw: Draw | None = None) -> str:
    """A thing by some of its words, without an article: `large red striped circle`, or `red shape` without its shape.

    Args:
        thing: to be described.
        words: which of `CLASSES` are said; order does not matter.
        draw: uniform numbers that choose among synonyms; None takes the plain words.
    """
    said = [
        say(word, draw)
        for kind, word in zip(CLASSES, thing.words, strict=True)
        if kind in words and word != "plain" and kind != "shape"
    ]
    return " ".join([*said, thing.shape if "shape" in words else "shape"])


def with_article(text: str) -> str:
    """`a red circle`, `an orange circle`."""
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


def plural(noun: str) -> str:
    """Of a shape, or of `shape` itself."""
    return _PLURALS[noun]


def distinguishing(things: Sequence[Thing], place: int, classes: Sequence[str] = CLASSES) -> tuple[str, ...] | None:
    """The fewest words that fit `things[place]` and no other of `things`; None if all of them do not tell it.

    The shape is always among them, so that `describe` with them is a name: `circle`, `red circle`. Since `plain` is never
    said, a plain thing is not told from a striped one by its texture.
    """
    thing, others = things[place], [other for number, other in enumerate(things) if number != place]
    adjectives = [kind for kind in ("colour", "texture", "size") if kind in classes]
    for count in range(len(adjectives) + 1):
        for chosen in combinations(adjectives, count):
            if "texture" in chosen and thing.texture == "plain":
                continue
            said = (*chosen, "shape")
            if not any(all(getattr(thing, kind) == getattr(other, kind) for kind in said) for other in others):
                return said
    return None
