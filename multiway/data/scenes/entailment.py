"""Visual entailment: does the picture prove a sentence, refute it, or leave it open?

As in SNLI-VE (Xie et al., Visual Entailment: A Novel Task for Fine-Grained Image Understanding, 2019, arXiv 1901.06706). The
entailed and the refuted sentences have the same forms and the same words equally often, so that the sentence alone does
not tell them apart. The open ones say of a thing that is there what no picture can show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from multiway.data.scenes.dice import Dice
from multiway.data.scenes.graph import COLOURS, RELATIONS, SHAPES, SIZES, Scene
from multiway.data.scenes.words import NUMBERS, describe, distinguishing, say, with_article

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
    "is hollow inside",
    "belongs to a child",
    "costs ten coins",
    "is warm to the touch",
    "has a number on its back",
)

_TRIES = 40


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


def triples(scene: Scene, seed: int = 0) -> tuple[Triple, ...]:
    """Three sentences, one for each of `LABELS`, in that order."""
    dice = Dice("entailment", scene, seed)
    found = []
    for label in ("entailment", "contradiction"):
        for _ in range(_TRIES):
            form = dice.pick((_attribute, _there, _relation, _count))
            triple = form(scene, dice, label == "entailment")
            if triple is not None:
                found.append(triple)
                break
    # Every scene has a number of things, if nothing else can be said of it.
    return found[0], _open(scene, dice), found[1]


def _label(true: bool) -> Label:
    return "entailment" if true else "contradiction"


def _names(scene: Scene, without: str = "") -> list[tuple[int, str]]:
    kinds = tuple(kind for kind in ("colour", "texture", "size", "shape") if kind != without)
    told = ((place, distinguishing(scene.things, place, kinds)) for place in range(len(scene.things)))
    return [(place, describe(scene.things[place], words)) for place, words in told if words is not None]


def _attribute(scene: Scene, dice: Dice, true: bool) -> Triple | None:
    """`the star is red`."""
    kind, words = dice.pick((("colour", tuple(COLOURS)), ("size", tuple(SIZES))))
    named = _names(scene, kind)
    if not named:
        return None
    place, name = dice.pick(named)
    own = getattr(scene.things[place], kind)
    word = own if true else dice.pick([each for each in words if each != own])
    return Triple(f"the {name} is {say(word)}", _label(true), f"the {name} is {say(own)}")


def _there(scene: Scene, dice: Dice, true: bool) -> Triple | None:
    """`there is a red star`; refuted by a word that another thing of the world has."""
    thing = dice.pick(scene.things)
    colour, shape = thing.colour, thing.shape
    if not true:
        colour, shape = (dice.pick(tuple(COLOURS)), shape) if dice.draw() < 0.5 else (colour, dice.pick(SHAPES))
        if any((other.colour, other.shape) == (colour, shape) for other in scene.things):
            return None
    reason = (
        "it is there" if true else f"there is {with_article(f'{thing.colour} {thing.shape}')}, and no {colour} {shape}"
    )
    return Triple(f"there is {with_article(f'{colour} {shape}')}", _label(true), reason)


def _relation(scene: Scene, dice: Dice, true: bool) -> Triple | None:
    """`the star is left of the ring`; refuted by the opposite."""
    names = dict(_names(scene))
    related = [each for each in scene.relations if each.subject in names and each.object in names]
    if not related:
        return None
    each = dice.pick(related)
    one, other = names[each.subject], names[each.object]
    said = each.name if true else RELATIONS[each.name]
    return Triple(f"the {one} is {said} the {other}", _label(true), f"the {one} is {each.name} the {other}")


def _count(scene: Scene, dice: Dice, true: bool) -> Triple | None:
    """`there are three shapes`."""
    own = len(scene.things)
    number = own if true else dice.pick([each for each in range(1, len(NUMBERS)) if each != own])

    def said(count: int) -> str:
        return "there is one shape" if count == 1 else f"there are {NUMBERS[count]} shapes"

    return Triple(said(number), _label(true), said(own))


def _open(scene: Scene, dice: Dice) -> Triple:
    """Of a thing that is there, something that no picture shows."""
    names = _names(scene)
    name = f"the {dice.pick(names)[1]}" if names else "one of the shapes"
    return Triple(f"{name} {dice.pick(UNDECIDABLE)}", "neutral", "no picture of these shapes shows it")
