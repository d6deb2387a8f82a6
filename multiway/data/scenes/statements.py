"""Statements about two pictures, true or false, each with a second pair of pictures for which the answer is the other.

As in NLVR2 (Suhr et al., A Corpus for Reasoning about Natural Language Grounded in Photographs, 2019, arXiv 1811.00491),
where a sentence is written so that it tells some pairs from others; a model that answers from the sentence alone is right
half of the time, and on both pairs never.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from multiway.data.scenes.counterfactual import changes
from multiway.data.scenes.dice import Dice
from multiway.data.scenes.graph import Difficulty, Scene
from multiway.data.scenes.words import NUMBERS, Words, describe, plural, with_article, words_of

__all__ = ["Form", "Statement", "statements"]

Kind = Literal["both", "one", "neither", "more", "sum"]
_KINDS: tuple[Kind, ...] = ("both", "one", "neither", "more", "sum")

# What the things spoken of have in common; never a texture, since what is plain is not called so.
_SPOKEN = (("shape",), ("colour",), ("colour", "shape"), ("size", "shape"))
_TRIES = 20  # sentences tried for one that a single change makes false, or true


@dataclass(frozen=True)
class Form:
    """What a sentence asserts: something of the numbers of things that fit `words` in the left and the right picture."""

    kind: Kind
    words: Words
    number: int = 0

    def holds(self, left: Scene, right: Scene) -> bool:
        """Whether it is true of a pair."""
        in_left, in_right = (sum(self.words.fit(thing.words) for thing in scene.things) for scene in (left, right))
        return {
            "both": in_left > 0 and in_right > 0,
            "one": (in_left > 0) != (in_right > 0),
            "neither": in_left == in_right == 0,
            "more": in_left > in_right,
            "sum": in_left + in_right == self.number,
        }[self.kind]


@dataclass(frozen=True)
class Statement:
    """A sentence about a pair of pictures.

    Attributes:
        text: the sentence.
        left, right: the pair.
        true: whether it holds.
        group: equal for the two statements of one sentence, of which one is true.
    """

    text: str
    left: Scene
    right: Scene
    true: bool
    group: str


def statements(
    left: Scene, right: Scene, difficulty: Difficulty, seed: int = 0, number: int = 1
) -> tuple[Statement, ...]:
    """Sentences about a pair, each beside itself about a pair that differs in one fact and for which it is the opposite.

    Returns:
        At most 2 x `number`: for each sentence the pair that was given, then the changed one.
    """
    found: list[Statement] = []
    said: set[str] = set()
    dice = Dice(f"statements {right.things[0].x} {right.things[0].y}", left, seed)
    for attempt in range(_TRIES * number):
        if len(found) >= 2 * number:
            break
        form, text = _sentence(left, right, dice)
        truth = form.holds(left, right)
        # As many begin true as false, whatever the kind and its rarity.
        if text in said or truth != ((len(found) // 2 + seed + round(1e6 * left.things[0].x)) % 2 == 0):
            continue
        for one, other in _changed(left, right, difficulty, seed + attempt):
            if form.holds(one, other) != truth:
                said.add(text)
                group = f"{text} {left.content} {right.content}"
                found += [Statement(text, left, right, truth, group), Statement(text, one, other, not truth, group)]
                break
    return tuple(found)


def _sentence(left: Scene, right: Scene, dice: Dice) -> tuple[Form, str]:
    """A sentence about something that one of the pictures shows, in words."""
    thing = dice.pick((*left.things, *right.things))
    name = describe(thing, dice.pick(_SPOKEN))
    words, kind = words_of(name), dice.pick(_KINDS)
    words = words if words.shape in (None, thing.shape) else words._replace(shape=None)
    *adjectives, noun = name.split()
    many = " ".join([*adjectives, plural(noun)])
    total = sum(words.fit(each.words) for each in (*left.things, *right.things))
    number = max(0, total + (0 if dice.draw() < 0.5 else dice.pick((-1, 1))))
    number = min(number, len(NUMBERS) - 1)
    counted = f"is {NUMBERS[number]} {name}" if number == 1 else f"are {NUMBERS[number]} {many}"
    text = {
        "both": f"both pictures show {with_article(name)}",
        "one": f"only one of the pictures shows {with_article(name)}",
        "neither": f"neither picture shows {with_article(name)}",
        "more": f"there are more {many} in the left picture than in the right one",
        "sum": f"in the two pictures together there {counted}",
    }[kind]
    return Form(kind, words, number if kind == "sum" else 0), text


def _changed(left: Scene, right: Scene, difficulty: Difficulty, seed: int) -> Iterator[tuple[Scene, Scene]]:
    """Pairs in which one picture differs in one fact."""
    for kind in ("attribute", "count"):
        for changed, _ in changes(left, difficulty, kind, seed):
            yield changed, right
        for changed, _ in changes(right, difficulty, kind, seed):
            yield left, changed
