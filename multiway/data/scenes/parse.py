"""From a caption back to what it asserts, and whether that is true of a scene.

Every sentence of the grammar is turned into a pattern once; a caption is what the one that fits it says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

from multiway.data.scenes.graph import RELATIONS, SHAPES, Relation, Scene
from multiway.data.scenes.productions import IT, PRODUCTIONS, TO, Production
from multiway.data.scenes.words import NUMBERS, WORD_CLASSES, Words, plural, words_of

__all__ = ["Claim", "Count", "parse"]


@dataclass(frozen=True)
class Count:
    """That exactly `number` things of the picture fit `words`."""

    number: int
    words: Words


@dataclass(frozen=True)
class Claim:
    """What a caption asserts.

    Attributes:
        things: that are there, all different, by what is said of each.
        relations: between them; `subject` and `object` are places in `things`.
        counts: of the picture's things.
        complete: whether nothing else is there. So it is if size, colour and shape are said of all things, and then a
            texture that is not said is plain.
    """

    things: tuple[Words, ...] = ()
    relations: tuple[Relation, ...] = ()
    counts: tuple[Count, ...] = ()
    complete: bool = False

    def holds(self, scene: Scene) -> bool:
        """Whether it is true: whether the scene's things can be taken for those named, each for one."""
        if self.complete and len(scene.things) != len(self.things):
            return False
        words = [thing.words for thing in scene.things]
        if any(sum(count.words.fit(each) for each in words) != count.number for count in self.counts):
            return False
        true = {(each.subject, each.name, each.object) for each in scene.relations}
        return any(
            all(said.fit(words[place]) for said, place in zip(self.things, places, strict=True))
            and all((places[each.subject], each.name, places[each.object]) in true for each in self.relations)
            for places in permutations(range(len(words)), len(self.things))
        )


def parse(caption: str) -> Claim:
    """What a caption of the grammar asserts.

    Raises:
        ValueError: if it is no sentence of the grammar.
    """
    for production, pattern in _patterns():
        match = pattern.fullmatch(caption)
        if match:
            claim = _read(production, match)
            if claim is not None:
                return claim
    raise ValueError(
        f"{caption!r} is no sentence of the scenes' grammar; "
        "see PRODUCTIONS in multiway/data/scenes/productions.py for those that are"
    )


def _any(ways: object) -> str:
    """A pattern for any of some words or phrases."""
    return "(?:" + "|".join(map(re.escape, ways)) + ")"  # type: ignore[call-overload]


_ADJECTIVES = "".join(f"(?:{_any(WORD_CLASSES[kind])} )?" for kind in ("size", "colour", "texture"))
_ADJECTIVE = _any(way for kind in ("size", "colour", "texture") for way in WORD_CLASSES[kind])
_ONE = _ADJECTIVES + _any((*SHAPES, "shape"))
_MANY = _ADJECTIVES + _any(map(plural, (*SHAPES, "shape")))
_SHAPE, _SHAPES = _any(SHAPES), _any(map(plural, SHAPES))
_RELATION_OF = {phrase: name for table in (TO, IT) for name in RELATIONS for phrase in table[name]}


def _slot(slot: str) -> str:
    """The pattern of what may stand in a slot, as a group by its name."""
    if slot == "N":
        inner = f"one shape|{_any(NUMBERS[2:])} shapes"
    elif slot in ("K", "L"):
        inner = f"one {_ONE}|{_any(number for number in NUMBERS if number != 'one')} {_MANY}"
    elif slot == "M of":
        inner = (
            f"(?:none|one) of them (?:{_ADJECTIVE}|an? {_SHAPE})|{_any(NUMBERS[2:])} of them (?:{_ADJECTIVE}|{_SHAPES})"
        )
    elif ":" in slot:
        inner = _any(way for ways in (IT if slot.endswith("it") else TO).values() for way in ways)
    elif slot.startswith("the "):
        inner = f"the {_ONE}"
    else:
        inner = f"something {_ADJECTIVE}|an? {_ONE}"
    return f"(?P<{_group(slot)}>{inner})"


def _group(slot: str) -> str:
    return "slot_" + re.sub(r"\W", "_", slot)


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[Production, re.Pattern[str]], ...]:
    """Every sentence once, with its pattern."""
    every = {production.text: production for table in PRODUCTIONS.values() for production in table}
    patterns = []
    for production in every.values():
        pieces = [
            _slot(piece) if place % 2 else re.escape(piece)  # text and slots by turns
            for place, piece in enumerate(production.pieces)
        ]
        patterns.append((production, re.compile("".join(pieces))))
    return tuple(patterns)


def _read(production: Production, match: re.Match[str]) -> Claim | None:
    """The claim of a sentence that fits; None if `the star` is not the thing that its place in the sentence says."""
    said = {slot: match[_group(slot)] for slot in production.slots}
    letters = sorted(slot for slot in said if slot in ("A", "B", "C", "D"))
    things = [words_of(said[letter]) for letter in letters]
    relations, counts = [], []
    for slot, text in said.items():
        if ":" in slot:
            relations.append(Relation(letters.index(slot[0]), _RELATION_OF[text], letters.index(slot[2])))
        elif slot.startswith("the "):
            again = words_of(text)
            if [letter for letter, thing in zip(letters, things, strict=True) if again.fit(thing)] != [slot[4]]:
                return None
        elif slot not in letters:
            number = text.split()[0]
            counts.append(Count(0 if number == "none" else NUMBERS.index(number), words_of(text)))
    complete = bool(things) and all(thing.size and thing.colour and thing.shape for thing in things)
    if complete:
        things = [thing._replace(texture=thing.texture or "plain") for thing in things]
    return Claim(tuple(things), tuple(relations), tuple(counts), complete)
