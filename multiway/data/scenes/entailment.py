"""Visual entailment: does the picture prove a sentence, refute it, or leave it open?

As in SNLI-VE (Xie et al., Visual Entailment: A Novel Task for Fine-Grained Image Understanding, 2019, arXiv 1901.06706).

Every form yields a true and a false sentence together, made so that either could be the true one of another picture:
they take their words from the same places, and a form is chosen before it is known which of the two is wanted. So the
words tell nothing of true against false, whichever colours, sizes and numbers the world has. The open sentences say of a
thing that is there what no picture can show; these a reader of the sentence alone does recognise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from multiway.data.scenes.dice import Dice
from multiway.data.scenes.graph import COLOURS, RELATIONS, SHAPES, Scene
from multiway.data.scenes.words import CLASSES, NUMBERS, describe, distinguishing, plural, with_article

__all__ = ["LABELS", "UNDECIDABLE", "Label", "Triple", "triples"]

Label = Literal["entailment", "neutral", "contradiction"]
LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")

# What may be true of a thing and is not to be seen.
UNDECIDABLE = (
    "is made of wood",
    "was painted yesterday",
    "is heavier than it looks",
    "is somebody's favourite",
    "was drawn first",
    "squeaks when it is pressed",
    "belongs to a child",
    "costs ten coins",
    "is warm to the touch",
    "has a number on its back",
)


@dataclass(frozen=True)
class Triple:
    """A sentence about the picture, and what the picture says to it.

    Attributes:
        hypothesis: the sentence.
        label: of `LABELS`.
        reason: the fact of the scene that decides, or what is missing.
    """

    hypothesis: str
    label: Label
    reason: str


@dataclass(frozen=True)
class _Pair:
    """Two sentences of one form, and the fact that proves the one and refutes the other."""

    true: str
    false: str
    fact: str


def triples(scene: Scene, seed: int = 0) -> tuple[Triple, Triple, Triple]:
    """Three sentences, one for each of `LABELS`, in that order."""
    dice = Dice("entailment", scene, seed)
    # Made twice: true and false sentences need not be of one form or about one thing.
    proved, refuted = _pair(scene, dice), _pair(scene, dice)
    return (
        Triple(proved.true, "entailment", proved.fact),
        Triple(
            f"the {dice.pick(_names(scene))[1]} {dice.pick(UNDECIDABLE)}", "neutral", "no picture of a shape shows it"
        ),
        Triple(refuted.false, "contradiction", refuted.fact),
    )


def _pair(scene: Scene, dice: Dice) -> _Pair:
    forms: tuple[Callable[[Scene, Dice], _Pair | None], ...] = (_attribute, _there, _relation, _count)
    made = (form(scene, dice) for form in dice.shuffled(forms))
    return next(pair for pair in made if pair is not None)  # `_there` and `_count` always are


def _names(scene: Scene, without: str = "") -> list[tuple[int, str]]:
    """Things that can be told without some class of words, and how. With all words, some thing always can be.

    Only a plain thing can fail to be told, for another that is like it but for its texture; that one is told by it.
    """
    kinds = tuple(kind for kind in CLASSES if kind != without)
    told = ((place, distinguishing(scene.things, place, kinds)) for place in range(len(scene.things)))
    return [(place, describe(scene.things[place], words)) for place, words in told if words is not None]


def _attribute(scene: Scene, dice: Dice) -> _Pair | None:
    """`the star is red`: refuted by the word of another thing that is there, or by any other colour."""
    kind = dice.pick(("colour", "size", "texture"))
    values = [getattr(thing, kind) for thing in scene.things]
    # A world need not have every size and texture. Those of the scene itself give nothing away.
    choices = [
        (name, values[place], other)
        for place, name in _names(scene, kind)
        for other in (COLOURS if kind == "colour" and dice.draw() < 0.5 else values)
        if other != values[place] and "plain" not in (other, values[place])
    ]
    if not choices:
        return None
    name, own, other = dice.pick(choices)
    return _Pair(f"the {name} is {own}", f"the {name} is {other}", f"the {name} is {own}")


def _there(scene: Scene, dice: Dice) -> _Pair:
    """`there is a red star`: refuted by one word changed, half of the time to that of another thing that is there."""
    thing = dice.pick(scene.things)
    present = {(each.colour, each.shape) for each in scene.things}
    colours: tuple[str, ...] = tuple(COLOURS)
    shapes: tuple[str, ...] = SHAPES
    if dice.draw() < 0.5:
        colours, shapes = tuple(each.colour for each in scene.things), tuple(each.shape for each in scene.things)
    by_colour = [(colour, thing.shape) for colour in colours if (colour, thing.shape) not in present]
    by_shape = [(thing.colour, shape) for shape in shapes if (thing.colour, shape) not in present]
    choices = [each for each in (by_colour, by_shape) if each]
    if not choices:  # one thing, or a kind that all of them are of
        choices = [[(colour, thing.shape) for colour in COLOURS if (colour, thing.shape) not in present]]
    own, other = (with_article(" ".join(each)) for each in ((thing.colour, thing.shape), dice.pick(dice.pick(choices))))
    return _Pair(f"there is {own}", f"there is {other}", f"there is {own}, and not {other}")


def _relation(scene: Scene, dice: Dice) -> _Pair | None:
    """`the star is left of the ring`: refuted by the opposite."""
    names = dict(_names(scene))
    related = [each for each in scene.relations if each.subject in names and each.object in names]
    if not related:
        return None
    each = dice.pick(related)
    true, false = (
        f"the {names[each.subject]} is {said} the {names[each.object]}" for said in (each.name, RELATIONS[each.name])
    )
    return _Pair(true, false, true)


def _count(scene: Scene, dice: Dice) -> _Pair:
    """`there are two red shapes`: refuted by the number that there are of another colour, or of another shape."""
    kind, words = dice.pick((("colour", tuple(COLOURS)), ("shape", SHAPES)))
    own = [getattr(thing, kind) for thing in scene.things]
    unequal = [
        (one, other) for one, other in permutations(words, 2) if one in own and own.count(one) != own.count(other)
    ]
    one, other = dice.pick(unequal)
    if dice.draw() < 0.5:  # what is not there is counted as often as what is
        one, other = other, one

    def said(number: int) -> str:
        noun = f"{one} shape" if kind == "colour" else one
        *adjectives, last = noun.split()
        many = noun if number == 1 else " ".join([*adjectives, plural(last)])
        return f"there {'is' if number == 1 else 'are'} {NUMBERS[number]} {many}"

    return _Pair(said(own.count(one)), said(own.count(other)), said(own.count(one)))
