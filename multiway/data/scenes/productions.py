"""The grammar of the scenes' captions: one table of sentences with slots."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

__all__ = ["IT", "KINDS", "PRODUCTIONS", "TO", "Production"]

KINDS = ("full", "attribute", "relation", "count")
"""What captions say: all of a picture, or only some words, where one thing lies, how many there are."""

# A relation before its object, and with `it` for an object that was just named.
TO: dict[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below",),
}
IT: dict[str, tuple[str, ...]] = {
    "left of": ("to its left", "on its left"),
    "right of": ("to its right", "on its right"),
    "above": ("above it",),
    "below": ("below it",),
}


@dataclass(frozen=True)
class Production:
    """A sentence with slots.

    A, B, C, D are different things of the scene:
    {A} names one (`a red circle`, `something red`), {the A} does so again in the fewest words, {A:B} says how A lies to
    B (`left of`), {A:B it} the same when B was just named (`to its left`). {N} is the number of all things (`three
    shapes`), {K} and {L} the number of those of some kind (`two red shapes`, `no stars`), {M of} the same after {N} (`two of
    them red`).
    """

    text: str

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """Text and slots by turns, text first."""
        return tuple(re.split(r"\{(.*?)\}", self.text))

    @property
    def slots(self) -> tuple[str, ...]:
        return self.pieces[1::2]

    @cached_property
    def things(self) -> int:
        """How many things it names."""
        return len({slot for slot in self.slots if slot in ("A", "B", "C", "D")})

    @cached_property
    def again(self) -> tuple[int, ...]:
        """The things, by letter, that are named again."""
        return tuple("ABCD".index(slot[4]) for slot in self.slots if slot.startswith("the "))

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The things, by letter, between which it says relations."""
        return tuple(("ABCD".index(slot[0]), "ABCD".index(slot[2])) for slot in self.slots if ":" in slot)


def _table(*sentences: str) -> tuple[Production, ...]:
    return tuple(map(Production, sentences))


# Kind and number of things -> sentences. Those of full captions with a relation stand before those without, which are
# only for scenes where no relation holds.
PRODUCTIONS: dict[tuple[str, int], tuple[Production, ...]] = {
    ("full", 1): _table(
        "{A}",
        "there is {A}",
        "a picture of {A}",
        "just {A}",
        "{A} and nothing else",
        "one shape: {A}",
    ),
    ("full", 2): _table(
        "{A} {A:B} {B}",
        "{A} is {A:B} {B}",
        "there is {A} {A:B} {B}",
        "{A:B} {B} is {A}",
        "{B} with {A} {A:B it}",
        "{A} and {B}; {the A} is {A:B} {the B}",
        "two shapes: {A} and {B}; {the B} is {B:A} {the A}",
        "there is {A} and {B}; {the A} is {A:B} {the B}",
        "{A} and {B}",
        "there is {A} and {B}",
        "two shapes: {A} and {B}",
        "{A} together with {B}",
        "a picture of {A} and {B}",
    ),
    ("full", 3): _table(
        "{A} {A:B} {B}, and {C}",
        "{A}, and {B} {B:C} {C}",
        "{A} {A:B} {B} which is {B:C} {C}",
        "{A} with {B} {B:A it} and {C} {C:A it}",
        "there is {A} {A:B} {B}, and also {C}",
        "three shapes: {A} {A:B} {B}, and {C}",
        "{A}, {B} and {C}; {the A} is {A:B} {the B}",
        "{A}, {B} and {C}",
        "three shapes: {A}, {B} and {C}",
    ),
    ("full", 4): _table(
        "{A} {A:B} {B}, {C} and {D}",
        "{A}, {B}, and {C} {C:D} {D}",
        "{A} {A:B} {B}, and {C} {C:D} {D}",
        "{A} with {B} {B:A it}, {C} and {D}",
        "four shapes: {A} {A:B} {B}, {C} and {D}",
        "{A}, {B}, {C} and {D}",
    ),
    ("attribute", 1): _table("{A}", "there is {A}", "a picture with {A}"),
    ("attribute", 2): _table("{A} and {B}", "there is {A} and {B}", "a picture with {A} and {B}", "{A}, and also {B}"),
    ("attribute", 3): _table("{A}, {B} and {C}"),
    ("relation", 2): _table(
        "{A} {A:B} {B}",
        "{A} is {A:B} {B}",
        "there is {A} {A:B} {B}",
        "{A:B} {B} is {A}",
        "{B} with {A} {A:B it}",
    ),
    ("relation", 3): _table("{A} with {B} {B:A it} and {C} {C:A it}"),
    ("count", 1): _table("{N}", "a picture of {N}", "{N} in all", "{K}", "a picture with {K}", "{K} and {L}"),
    ("count", 2): _table("{N}, {M of}", "a picture of {N}, {M of}"),
}
