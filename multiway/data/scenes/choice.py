"""Four-way choice with reasons: a question and four answers, then four reasons for the right one.

As in VCR (Zellers et al., From Recognition to Cognition, 2019, arXiv 1811.10830): chance is 1/4 for the answer, 1/4 for the
reason given the answer, and 1/16 for both. A right reason is a fact of the scene from which the answer follows. The wrong
ones would be reasons too, for this answer or another, and are false of the scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from multiway.data.scenes.dice import Dice
from multiway.data.scenes.graph import COLOURS, RELATIONS, SHAPES, SIZES, Scene
from multiway.data.scenes.words import NUMBERS, describe, distinguishing

__all__ = ["KINDS", "OUTLINES", "Choice", "choices"]

KINDS = ("larger", "where", "shape", "others")

# What one sees of a shape without its name; no two are alike.
OUTLINES: dict[str, str] = dict(
    zip(
        SHAPES,
        (
            "its outline is round and whole",
            "it has four equal sides and four right angles",
            "it has three corners",
            "it has five points",
            "it has two round lobes above one point",
            "it has four arms",
            "it is round and has a hole",
            "it has four corners and is taller than wide",
        ),
        strict=True,
    )
)

_SEEN_FROM = {"left of": "to its left", "right of": "to its right", "above": "above it", "below": "below it"}


@dataclass(frozen=True)
class Choice:
    """A question with four answers, and four reasons for the right one.

    Attributes:
        kind: of `KINDS`.
        question: about the picture.
        answers, reasons: four each, all different.
        answer, reason: which of them is right.
        things: that it is about, by place in `scene.things`.
    """

    kind: str
    question: str
    answers: tuple[str, ...]
    answer: int
    reasons: tuple[str, ...]
    reason: int
    things: tuple[int, ...]


def choices(scene: Scene, seed: int = 0) -> tuple[Choice, ...]:
    """At most one choice of each kind, in the order of `KINDS`; a lone thing is not larger than another."""
    dice = Dice("choice", scene, seed)
    found = []
    for kind, make in zip(KINDS, (_larger, _where, _shape, _others), strict=True):
        for question, answers, reasons, things in make(scene, dice):
            answer, reason = _mixed(answers, dice), _mixed(reasons, dice)
            found.append(Choice(kind, question, *answer, *reason, things))
            break
    return tuple(found)


# Question, answers and reasons with the right one first, and the things they are about.
_Draft = tuple[str, Sequence[str], Sequence[str], tuple[int, ...]]


def _mixed(options: Sequence[str], dice: Dice) -> tuple[tuple[str, ...], int]:
    """The first option, which is right, and three of the others in any order."""
    four = dice.shuffled([options[0], *dice.shuffled(options[1:])[:3]])
    return tuple(four), four.index(options[0])


def _pairs(scene: Scene, dice: Dice) -> Iterator[tuple[int, str, int, str]]:
    """Two things, each with its name that says nothing of size."""
    named = [
        (place, words)
        for place in range(len(scene.things))
        if (words := distinguishing(scene.things, place, ("colour", "texture", "shape"))) is not None
    ]
    for (one, first), (other, second) in dice.shuffled(list(permutations(named, 2))):
        yield one, describe(scene.things[one], first), other, describe(scene.things[other], second)


def _larger(scene: Scene, dice: Dice) -> Iterator[_Draft]:
    for one, first, other, second in _pairs(scene, dice):
        sizes = (scene.things[one].size, scene.things[other].size)
        answers = [f"the {first}", f"the {second}", "they are of one size", "neither of them is in the picture"]
        rank = [tuple(SIZES).index(size) for size in sizes]
        right = 2 if rank[0] == rank[1] else int(rank[0] < rank[1])
        wrong = [(a, b) for a in SIZES for b in SIZES if (a, b) != sizes]

        def said(a: str, b: str, first: str = first, second: str = second) -> str:
            return f"the {first} is {a} and the {second} is {b}"

        yield (
            f"which is larger, the {first} or the {second}?",
            [answers[right], *answers[:right], *answers[right + 1 :]],
            [said(*sizes), *(said(*pair) for pair in wrong)],
            (one, other),
        )


def _where(scene: Scene, dice: Dice) -> Iterator[_Draft]:
    """Where one thing lies to another; the reason is the relation the other way round."""
    related = {(each.subject, each.object): each.name for each in scene.relations}
    for one, first, other, second in _pairs(scene, dice):
        name = related.get((one, other))
        if name is None:
            continue
        back = RELATIONS[name]
        yield (
            f"seen from the {second}, where is the {first}?",
            [_SEEN_FROM[name], *(words for way, words in _SEEN_FROM.items() if way != name)],
            [f"the {second} is {way} the {first}" for way in (back, *(each for each in RELATIONS if each != back))],
            (one, other),
        )


def _shape(scene: Scene, dice: Dice) -> Iterator[_Draft]:
    """What shape a thing has that can be named without it: by a word that no other thing bears."""
    for place in dice.shuffled(range(len(scene.things))):
        thing = scene.things[place]
        for kind in ("colour", "size", "texture"):
            word = getattr(thing, kind)
            if word == "plain" or sum(getattr(other, kind) == word for other in scene.things) > 1:
                continue
            yield (
                f"what is the {describe(thing, (kind,))}?",
                [f"a {shape}" for shape in (thing.shape, *(each for each in SHAPES if each != thing.shape))],
                [OUTLINES[thing.shape], *(outline for shape, outline in OUTLINES.items() if shape != thing.shape)],
                (place,),
            )


def _others(scene: Scene, dice: Dice) -> Iterator[_Draft]:
    """How many things are not of a colour; the reason counts all and those that are."""
    count = len(scene.things)
    colour = dice.pick(tuple(COLOURS)) if dice.draw() < 0.2 else dice.pick(scene.things).colour
    of_it = sum(thing.colour == colour for thing in scene.things)

    def said(every: int, fitting: int) -> str:
        verb, noun = ("is", "shape") if every == 1 else ("are", "shapes")
        return f"there {verb} {NUMBERS[every]} {noun}, {'none' if fitting == 0 else NUMBERS[fitting]} of them {colour}"

    wrong = [
        said(every, fitting)
        for every in range(1, len(NUMBERS))
        for fitting in range(every + 1)
        if (every, fitting) != (count, of_it)
    ]
    right = count - of_it
    yield (
        f"how many shapes are not {colour}?",
        [NUMBERS[right] if right else "none", *("none" if n == 0 else NUMBERS[n] for n in range(5) if n != right)],
        [said(count, of_it), *wrong],
        tuple(range(count)),
    )
