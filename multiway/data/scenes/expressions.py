"""Referring expressions: the shortest words that mean one thing of a picture and no other, with its box.

As in RefCOCO and, without words of place, RefCOCO+ (Yu et al., Modeling Context in Referring Expressions, 2016,
arXiv 1608.00272). What a thing *is* comes first, then size beside its like, then where it lies:

    the star                       by its own words
    the largest circle             of those that these words fit, by size
    the red circle left of the star, the leftmost circle           by place
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from multiway.data.scenes.graph import APART, RELATIONS, SIZES, Scene, Thing
from multiway.data.scenes.words import CLASSES, describe, distinguishing

__all__ = ["Expression", "expression", "expressions"]

_SIZE_ORDER = tuple(SIZES)

# A place -> how far to that side a thing lies; the greater, the more so.
_SIDES = {
    "leftmost": lambda thing: -thing.x,
    "rightmost": lambda thing: thing.x,
    "topmost": lambda thing: -thing.y,
    "bottommost": lambda thing: thing.y,
}
_TOWARDS = dict(zip(RELATIONS, ("leftmost", "rightmost", "topmost", "bottommost"), strict=True))


@dataclass(frozen=True)
class Expression:
    """Words for one thing of a scene.

    Attributes:
        thing: its place in `scene.things`.
        text: `the red circle left of the star`.
        kind: what tells it from the others: its own words, its size beside theirs, or its place.
        box: left, top, right, bottom, as shares of the picture's side.
    """

    thing: int
    text: str
    kind: Literal["attributes", "size", "place"]
    box: tuple[float, float, float, float]


def expressions(scene: Scene, places: bool = True) -> tuple[Expression, ...]:
    """An expression for each thing that has one; with `places` False none says where a thing lies, as in RefCOCO+."""
    found = (expression(scene, number, places) for number in range(len(scene.things)))
    return tuple(each for each in found if each is not None)


def expression(scene: Scene, thing: int, places: bool = True) -> Expression | None:
    """The first expression that fits `scene.things[thing]` alone; None where nothing tells it, as nothing said of it does.

    Two things may look different and yet have no different words: a plain one is never called so.
    """
    own = distinguishing(scene.things, thing)
    if own is not None:
        return Expression(thing, f"the {describe(scene.things[thing], own)}", "attributes", scene.things[thing].box)
    for text in _by_size(scene, thing):
        return Expression(thing, text, "size", scene.things[thing].box)
    if places:
        for text in _by_place(scene, thing):
            return Expression(thing, text, "place", scene.things[thing].box)
    return None


def _like(scene: Scene, thing: int, classes: tuple[str, ...]) -> list[Thing]:
    """The other things that are called the same by these words; what is plain may be called by no texture."""
    own = scene.things[thing]
    return [
        other
        for number, other in enumerate(scene.things)
        if number != thing and all(getattr(own, kind) in (getattr(other, kind), "plain") for kind in classes)
    ]


def _by_size(scene: Scene, thing: int) -> Iterator[str]:
    own = scene.things[thing]
    rank = _SIZE_ORDER.index(own.size)
    for classes in (("shape",), ("colour", "shape"), ("colour", "texture", "shape")):
        others = [_SIZE_ORDER.index(other.size) for other in _like(scene, thing, classes)]
        if others and rank > max(others):
            yield f"the largest {describe(own, classes)}"
        if others and rank < min(others):
            yield f"the smallest {describe(own, classes)}"


def _by_place(scene: Scene, thing: int) -> Iterator[str]:
    own = scene.things[thing]
    named = [(number, distinguishing(scene.things, number)) for number in range(len(scene.things)) if number != thing]
    for classes in (("shape",), ("colour", "shape"), CLASSES):
        like = _like(scene, thing, classes)
        for number, words in named:
            other = scene.things[number]
            for each in scene.relations:
                if (each.subject, each.object) != (thing, number) or words is None:
                    continue
                side = _SIDES[_TOWARDS[each.name]]
                # None of its like may lie on that side of the other at all, be it ever so little.
                if all(side(one) < side(other) for one in like if one is not other):
                    yield f"the {describe(own, classes)} {each.name} the {describe(other, words)}"
        for word, side in _SIDES.items():
            if like and all(side(own) - side(one) >= APART for one in like):
                yield f"the {word} {describe(own, classes)}"
