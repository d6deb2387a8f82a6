"""What is said of a scene: a table of sentences with slots, and how they are filled in.

    captions(scene, number=1, kind="full", seed=0) -> tuple[str, ...]     true and distinct, the first one plain

and from `words.py`:

    describe(thing, words=CLASSES, draw=None) -> str                      "large red striped circle", without an article
    with_article(text) -> str                                             "a red circle", "an orange circle"
    distinguishing(things, place, classes=CLASSES) -> tuple[str, ...]     fewest classes of words that tell one thing
    words_of(text) -> Words(size, colour, texture, shape)                 what a description says; None where nothing

and from `parse.py`:

    parse(caption) -> Claim                                               what a caption asserts
    Claim.holds(scene) -> bool                                            whether that is true

A FULL caption says size, colour and shape of everything in the picture, its texture if it is not plain, and where
one thing lies to another if any relation holds. It says that there is nothing else. PARTIAL captions say less: some words of
some things (`attribute`), where one lies to another (`relation`), or how many there are (`count`); no partial caption
says size, colour and shape of everything that it names, so the kinds cannot be confused.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TypeVar

from multiway.data.scenes.graph import COLOURS, SHAPES, SIZES, TEXTURES, Scene, Thing, relation
from multiway.data.scenes.productions import IT, KINDS, PRODUCTIONS, TO, Production
from multiway.data.scenes.words import CLASSES, NUMBERS, Words, describe, distinguishing, plural, say, with_article
from multiway.data.source import stable_id

__all__ = ["KINDS", "captions"]

_PARTS = (  # what a partial caption says of one thing; never size, colour and shape together
    ("shape",),
    ("colour",),
    ("size",),
    ("texture",),
    ("colour", "shape"),
    ("size", "shape"),
    ("texture", "shape"),
    ("size", "colour"),
    ("colour", "texture"),
    ("colour", "texture", "shape"),
)

# What the things that are counted have in common, with a noun and after `of them`.
_COUNTED = (("colour",), ("shape",), ("texture",), ("size",), ("colour", "shape"))
_COUNTED_OF = _COUNTED[:4]
_ALL: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "shape": SHAPES,
}
_NAME = 2  # most words of a name, so that no full caption has more than 30 words and marks

_ABSENT = 0.3  # share of counts that are of words drawn at random, mostly of things that are not there

Item = TypeVar("Item")
Draw = Callable[[], float]
_ROUNDS = 6  # times a further distinct caption is tried for before giving up


def captions(scene: Scene, number: int = 1, kind: str = "full", seed: int = 0) -> tuple[str, ...]:
    """Different true sentences about a scene.

    Args:
        scene: what is talked of.
        number: how many are wanted.
        kind: of `KINDS`.
        seed: of the choice of words and sentences; the scene itself enters too.

    Returns:
        At most `number`, fewer where no more can be said in this kind: a scene where no relation holds has no caption
        of kind `relation`. The first full caption is always the plainest: its words are no synonyms and its sentence is
        the first that fits.

    Raises:
        ValueError: for another kind, and for a scene of more things than there are sentences for.
    """
    if kind not in KINDS:
        raise ValueError(f"there are no captions of kind {kind!r}; kinds are {', '.join(KINDS)}")
    if ("full", len(scene.things)) not in PRODUCTIONS:
        raise ValueError(
            f"a scene of {len(scene.things)} things has no captions; the grammar has sentences for one to four"
        )
    draw = random.Random(stable_id(f"captions {seed} {kind} {scene.things[0].x} {scene.things[0].y}")).random
    chosen = list(_fitting(scene, kind))
    found: dict[str, None] = {}  # a set that keeps its order
    if kind == "full":
        production, orders = chosen[0]
        found[_fill(production, scene, orders[0], kind, _plainly)] = None
    for _ in range(_ROUNDS):
        for production, orders in _shuffled(chosen, draw):
            if len(found) >= number:
                return tuple(found)[:number]
            found[_fill(production, scene, _choose(orders, draw), kind, draw)] = None
    return tuple(found)[:number]


def _fitting(scene: Scene, kind: str) -> Iterator[tuple[Production, list[tuple[int, ...]]]]:
    """Sentences of a kind that a scene allows, each with the orders of things that fill A, B, C, D truly."""
    related = {(each.subject, each.object) for each in scene.relations}
    places = range(len(scene.things))
    for (own, count), productions in PRODUCTIONS.items():
        if own != kind or count > len(scene.things) or (kind == "full" and count != len(scene.things)):
            continue
        for production in productions:
            if kind == "full" and count > 1 and bool(production.pairs) != bool(related):
                continue
            orders = [
                order
                for order in permutations(places, production.things)
                if all((order[one], order[other]) in related for one, other in production.pairs)
                and all(_name(scene, order[again]) for again in production.again)
            ]
            if orders:
                yield production, orders


def _fill(production: Production, scene: Scene, order: Sequence[int], kind: str, draw: Draw) -> str:
    """The sentence, its slots filled."""
    pieces = list(production.pieces)
    named = {letter: scene.things[place] for letter, place in zip("ABCD", order, strict=False)}
    counted: list[Words] = []
    for place in range(1, len(pieces), 2):
        slot = pieces[place]
        if slot == "N":
            pieces[place] = _group(len(scene.things), "shape")
        elif slot in ("K", "L", "M of"):
            pieces[place] = _counted(scene, slot, counted, draw)
        elif ":" in slot:
            said = relation(named[slot[0]], named[slot[2]]) or ""
            pieces[place] = _choose((IT if slot.endswith("it") else TO)[said], draw)
        elif slot.startswith("the "):
            number = order["ABCD".index(slot[4])]
            pieces[place] = "the " + describe(scene.things[number], _name(scene, number), draw)
        elif kind == "full":
            pieces[place] = with_article(describe(named[slot], CLASSES, draw))
        else:
            pieces[place] = _part(named[slot], draw)
    return "".join(pieces)


def _name(scene: Scene, place: int) -> tuple[str, ...]:
    """What to call a thing by that was described before; empty if that would take too many words."""
    said = distinguishing(scene.things, place) or ()
    return said if len(said) <= _NAME else ()


def _part(thing: Thing, draw: Draw) -> str:
    """Some words of a thing: `a red star`, `a small shape`, `something red`."""
    parts = [part for part in _PARTS if thing.texture != "plain" or "texture" not in part]
    part = _choose(parts, draw)
    if len(part) == 1 and part != ("shape",) and draw() < 0.5:
        return f"something {say(getattr(thing, part[0]), draw)}"
    return with_article(describe(thing, part, draw))


def _group(number: int, noun: str) -> str:
    """`one red circle`, `no stars`; the last word is put into the plural."""
    adjectives, _, last = noun.rpartition(" ")
    last = last if number == 1 else plural(last)
    return " ".join(filter(None, (NUMBERS[number], adjectives, last)))


def _counted(scene: Scene, slot: str, counted: list[Words], draw: Draw) -> str:
    """How many things of some kind there are; mostly of a kind that there is, and not of one in `counted` already."""
    while True:
        thing = _choose(scene.things, draw)
        if draw() < _ABSENT:
            thing = replace(thing, **{each: _choose(words, draw) for each, words in _ALL.items()})  # type: ignore[arg-type]
        kind = _choose(_COUNTED_OF if slot == "M of" else _COUNTED, draw)
        words = Words(**{each: getattr(thing, each) for each in kind})
        if words.texture != "plain" and words not in counted:
            break
    counted.append(words)
    number = sum(words.fit(each.words) for each in scene.things)
    if slot != "M of":
        return _group(number, describe(thing, kind, draw))
    amount = NUMBERS[number] if number else "none"
    if words.shape is None:
        return f"{amount} of them {say(getattr(thing, kind[0]), draw)}"
    return f"{amount} of them {with_article(thing.shape) if number < 2 else plural(thing.shape)}"


def _choose(items: Sequence[Item], draw: Draw) -> Item:
    return items[int(draw() * len(items))]


def _shuffled(items: Sequence[Item], draw: Draw) -> list[Item]:
    return [items[place] for _, place in sorted((draw(), place) for place in range(len(items)))]


def _plainly() -> float:
    """In place of uniform numbers: of all ways to say something, always the first."""
    return 0.0
