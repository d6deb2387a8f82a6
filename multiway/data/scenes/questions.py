"""Questions about a picture, each with the answers of ten people, as VQA v2 has them.

Goyal et al., Making the V in VQA Matter, 2017, arXiv 1612.00837: ten people answer each question, and an answer counts
min(1, how many of the ten gave it / 3). Here all ten say the truth, unless some are made to disagree.

A question is asked only where it has one answer: what it calls `the star` is there, once, and a relation that it asks for
holds for one thing. `yes` and `no` are equally frequent in every kind that has them, whatever the world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from multiway.data.scenes.dice import Dice
from multiway.data.scenes.graph import COLOURS, RELATIONS, SHAPES, SIZES, TEXTURES, Scene
from multiway.data.scenes.words import (
    CLASSES,
    Words,
    describe,
    distinguishing,
    plural,
    say,
    with_article,
)

__all__ = ["ANSWERS", "KINDS", "Kind", "Question", "questions"]

Kind = Literal["attribute", "count", "existence", "relation", "comparison"]
KINDS: tuple[Kind, ...] = ("attribute", "count", "existence", "relation", "comparison")

_COUNTS = ("0", "1", "2", "3", "4")
_TEXTURES = tuple(texture for texture in TEXTURES if texture != "plain")  # no one is asked to say that it is plain

# Answers that are mistaken for one another, by what is asked for.
_ALIKE: tuple[tuple[str, ...], ...] = (("yes", "no"), _COUNTS, tuple(SIZES), tuple(COLOURS), _TEXTURES, SHAPES)

# What else somebody may say and mean the same.
_SYNONYMS = {"small": "little", "large": "big", "striped": "stripy", "dotted": "spotted", "checked": "checkered"}

ANSWERS: tuple[str, ...] = (*(word for group in _ALIKE for word in group), *_SYNONYMS.values())
"""Every answer that can occur, the truth's words first in each group: a closed vocabulary for classifiers."""

_TRIES = 12  # questions of each kind that are looked at for each that is wanted


@dataclass(frozen=True)
class Question:
    """A question and its answers.

    Attributes:
        text: the question.
        answer: the true one.
        answers: what ten people said.
        kind: of `KINDS`.
        things: the things that it names, by place in `scene.things`.
    """

    text: str
    answer: str
    answers: tuple[str, ...]
    kind: Kind
    things: tuple[int, ...]


_Draft = tuple[str, str, tuple[int, ...]]  # text, answer, things


def questions(scene: Scene, number: int, seed: int = 0, disagreement: float = 0.0) -> tuple[Question, ...]:
    """Different questions about a scene, the kinds by turns.

    Args:
        scene: what is asked about.
        number: how many are wanted; fewer where no more can be asked.
        seed: of the choice.
        disagreement: chance with which each of the ten says something else: a synonym, where there is one, as often as
            another word of the kind that was asked for.

    Raises:
        ValueError: if the disagreement is no chance.
    """
    if not 0.0 <= disagreement <= 1.0:
        raise ValueError(f"disagreement is {disagreement}; expected a chance between 0 and 1")
    dice = Dice("questions", scene, seed)
    makers: dict[Kind, Callable[[Scene, Dice], _Draft | None]] = {
        "attribute": _attribute,
        "count": _count,
        "existence": _existence,
        "relation": _relation,
        "comparison": _comparison,
    }
    found: dict[str, Question] = {}
    for attempt in range(_TRIES * number):
        if len(found) == number:
            break
        kind = KINDS[attempt % len(KINDS)]
        draft = makers[kind](scene, dice)
        if draft is not None and draft[0] not in found:
            text, answer, things = draft
            found[text] = Question(text, answer, _ten(answer, disagreement, dice), kind, things)
    return tuple(found.values())


def _ten(answer: str, disagreement: float, dice: Dice) -> tuple[str, ...]:
    """What ten people say."""

    def one() -> str:
        if dice.draw() >= disagreement:
            return answer
        if answer in _SYNONYMS and dice.draw() < 0.5:
            return _SYNONYMS[answer]
        return dice.pick([word for group in _ALIKE if answer in group for word in group if word != answer])

    return tuple(one() for _ in range(10))


def _named(scene: Scene, without: tuple[str, ...] = ()) -> Iterator[tuple[int, str]]:
    """Things that can be told without some classes of words, and how: `the star`, or `the red shape` without its shape."""
    for place, thing in enumerate(scene.things):
        if "shape" in without:
            for kind in ("colour", "size", "texture"):
                word = getattr(thing, kind)
                if kind not in without and word != "plain" and sum(word in other.words for other in scene.things) == 1:
                    yield place, describe(thing, (kind,))
                    break
            continue
        words = distinguishing(scene.things, place, tuple(kind for kind in CLASSES if kind not in without))
        if words is not None:
            yield place, describe(thing, words)


def _attribute(scene: Scene, dice: Dice) -> _Draft | None:
    kind = dice.pick(CLASSES)
    named = [each for each in _named(scene, (kind,)) if getattr(scene.things[each[0]], kind) != "plain"]
    if not named:
        return None
    place, name = dice.pick(named)
    asked = {"size": "what size", "colour": "what colour", "texture": "what pattern", "shape": "what shape"}[kind]
    return f"{asked} is the {name}?", getattr(scene.things[place], kind), (place,)


def _count(scene: Scene, dice: Dice) -> _Draft | None:
    words, name = _something(scene, dice)
    *adjectives, noun = name.split()
    number = sum(words.fit(thing.words) for thing in scene.things)
    return f"how many {' '.join([*adjectives, plural(noun)])} are there?", _COUNTS[number], ()


def _something(scene: Scene, dice: Dice) -> tuple[Words, str]:
    """One or two words for a thing that is there, or at times for one that may not be."""
    thing = dice.pick(scene.things)
    words = Words(*thing.words)
    if dice.draw() < 0.3:
        words = words._replace(colour=dice.pick(tuple(COLOURS)), shape=dice.pick(SHAPES))
    kinds = dice.pick((("colour",), ("shape",), ("colour", "shape")))
    said = Words(**{kind: getattr(words, kind) for kind in kinds})
    return said, _phrase(said)


def _phrase(words: Words) -> str:
    adjectives = [say(word) for word in (words.size, words.colour, words.texture) if word not in (None, "plain")]
    return " ".join([*adjectives, words.shape or "shape"])


def _existence(scene: Scene, dice: Dice) -> _Draft | None:
    """`no` differs from what is there in one word."""
    place = int(dice.draw() * len(scene.things))
    words = Words(colour=scene.things[place].colour, shape=scene.things[place].shape)
    if dice.draw() < 0.5:
        return f"is there {with_article(_phrase(words))}?", "yes", (place,)
    changed = (
        words._replace(colour=dice.pick(tuple(COLOURS)))
        if dice.draw() < 0.5
        else words._replace(shape=dice.pick(SHAPES))
    )
    if any(changed.fit(thing.words) for thing in scene.things):
        return None
    return f"is there {with_article(_phrase(changed))}?", "no", ()


def _relation(scene: Scene, dice: Dice) -> _Draft | None:
    if not scene.relations:
        return None
    each = dice.pick(scene.relations)
    names = dict(_named(scene))
    other = names.get(each.object)
    if other is None:
        return None
    if dice.draw() < 0.5:
        one = names.get(each.subject)
        # The opposite, not merely another: what is above may be a little to the left as well.
        truth = dice.draw() < 0.5
        said = each.name if truth else RELATIONS[each.name]
        if one is None:
            return None
        return f"is the {one} {said} the {other}?", "yes" if truth else "no", (each.subject, each.object)
    if _may_be(scene, each.name, each.object) != [each.subject]:
        return None
    kind = dice.pick(("shape", "colour"))
    answer = getattr(scene.things[each.subject], kind)
    return f"what {kind} is the thing {each.name} the {other}?", answer, (each.subject, each.object)


def _may_be(scene: Scene, name: str, anchor: int) -> list[int]:
    """Things that lie on that side of another at all, be it ever so little: none but one may, if it is to be asked for."""
    fixed = scene.things[anchor]
    ahead = {
        "left of": lambda thing: thing.x < fixed.x,
        "right of": lambda thing: thing.x > fixed.x,
        "above": lambda thing: thing.y < fixed.y,
        "below": lambda thing: thing.y > fixed.y,
    }[name]
    return [place for place, thing in enumerate(scene.things) if place != anchor and ahead(thing)]


def _comparison(scene: Scene, dice: Dice) -> _Draft | None:
    """Two sizes, or two numbers of things; `yes` for one order of the two and `no` for the other."""
    truth = dice.draw() < 0.5
    if dice.draw() < 0.5:
        named = list(_named(scene, ("size",)))
        if len(named) < 2:
            return None
        (one, first), (other, second) = dice.shuffled(named)[:2]
        rank = [tuple(SIZES).index(scene.things[place].size) for place in (one, other)]
        if rank[0] == rank[1]:
            return None
        if (rank[0] > rank[1]) != truth:
            (one, first), (other, second) = (other, second), (one, first)
        return f"is the {first} larger than the {second}?", "yes" if truth else "no", (one, other)
    kind = dice.pick(("colour", "shape"))
    one_word, other_word = (
        dice.pick([getattr(t, kind) for t in scene.things]),
        dice.pick(tuple(COLOURS) if kind == "colour" else SHAPES),
    )
    counts = [sum(getattr(t, kind) == word for t in scene.things) for word in (one_word, other_word)]
    if counts[0] == counts[1]:
        return None
    if (counts[0] > counts[1]) != truth:
        one_word, other_word = other_word, one_word
    many = [f"{word} shapes" if kind == "colour" else plural(word) for word in (one_word, other_word)]
    return f"are there more {many[0]} than {many[1]}?", "yes" if truth else "no", ()
