"""The scene graph: what is in a picture, from which pixels, words, questions and answers all follow.

A scene is a background and one to four things, each with a shape, colour, size, texture, place and turn. Scene number n
of a world is a function of (seed, n), so the world is endless and any scene can be drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

from multiway.data.source import stable_id

__all__ = [
    "BACKGROUNDS", "COLOURS", "DIFFICULTIES", "RELATIONS", "SHAPES", "SIZES", "TEXTURES",
    "Difficulty", "Relation", "Scene", "Thing", "make_scene", "relation",
]  # fmt: skip

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")

# sRGB; far enough apart to be told on every background.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (255, 140, 0),
    "yellow": (240, 212, 20),
    "green": (44, 150, 52),
    "blue": (38, 84, 214),
    "purple": (132, 48, 168),
    "pink": (247, 133, 190),
    "brown": (121, 72, 38),
}

# Radius of a thing, as a share of the picture's side: from, to. The gaps keep the words apart.
SIZES: dict[str, tuple[float, float]] = {"small": (0.085, 0.105), "medium": (0.135, 0.155), "large": (0.19, 0.215)}

TEXTURES = ("plain", "striped", "dotted", "checked")

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "grey": (200, 202, 206),
    "black": (24, 24, 28),
    "cream": (250, 240, 214),
}

# relation -> the one that holds the other way round
RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

# A relation is said only where one axis clearly decides: this far apart, and this much farther than on the other axis.
APART, DECIDED = 0.16, 1.5

# Free space, as a share of the side, around a thing: to the edge of the picture, and between two things.
EDGE, GAP = 0.02, 0.025

_TRIES = 12  # places tried for a thing before the whole scene is tried again
_COLOUR_NAMES, _SIZE_NAMES = tuple(COLOURS), tuple(SIZES)


@dataclass(frozen=True)
class Thing:
    """One thing in a picture. Lengths are shares of the picture's side; y grows downwards.

    Attributes:
        shape, colour, size, texture: words of `SHAPES`, `COLOURS`, `SIZES`, `TEXTURES`.
        x, y: centre, in [0, 1].
        radius: of the circle that holds the shape.
        angle: turn of the shape in radians; the direction of stripes turns with it.
    """

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float
    radius: float
    angle: float = 0.0

    @property
    def words(self) -> tuple[str, str, str, str]:
        """(size, colour, texture, shape): all that can be said of a thing but its place."""
        return (self.size, self.colour, self.texture, self.shape)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the circle that holds it."""
        return (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


@dataclass(frozen=True)
class Relation:
    """`scene.things[subject]` is `name` `scene.things[object]`: left of, right of, above, below."""

    subject: int
    name: str
    object: int


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        things: in the order they are drawn; none covers another.
        background: a word of `BACKGROUNDS`.
        second: a second background that the first shades into from top to bottom; equal for an even one.
    """

    things: tuple[Thing, ...]
    background: str = "white"
    second: str = "white"

    @cached_property
    def relations(self) -> tuple[Relation, ...]:
        """All relations that hold without doubt, both ways round."""
        return tuple(_relations(self.things))

    @property
    def content(self) -> tuple[tuple[str, str, str, str], ...]:
        """The things' words, sorted. Pictures of different content share no full caption."""
        return tuple(sorted(thing.words for thing in self.things))


def relation(subject: Thing, other: Thing) -> str | None:
    """How `subject` lies to `other`; None where no axis decides."""
    dx, dy = subject.x - other.x, subject.y - other.y
    if abs(dx) >= APART and abs(dx) >= DECIDED * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= APART and abs(dy) >= DECIDED * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def _relations(things: tuple[Thing, ...]) -> Iterator[Relation]:
    for a, b in permutations(range(len(things)), 2):
        name = relation(things[a], things[b])
        if name is not None:
            yield Relation(a, name, b)


@dataclass(frozen=True)
class Difficulty:
    """Which scenes a world holds.

    Attributes:
        objects: fewest and most things.
        textures, sizes, backgrounds: how many words of each list are used, from its start.
        smallest: how many of the sizes are left out, from its start.
        turn: greatest turn of a shape either way, in radians.
        kin: chance that a further thing shares its shape or its colour with the one before: pictures that only attention
            to which thing has which colour can tell apart.
        shaded: whether backgrounds may shade into another.
    """

    objects: tuple[int, int]
    textures: int
    sizes: int
    backgrounds: int
    turn: float = 0.0
    kin: float = 0.0
    shaded: bool = False
    smallest: int = 0

    @property
    def size_names(self) -> tuple[str, ...]:
        """Sizes that things have, the smallest first."""
        return _SIZE_NAMES[self.smallest : self.sizes]

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """The words of each class that the world uses."""
        textures = TEXTURES[: self.textures]
        return {"size": self.size_names, "colour": _COLOUR_NAMES, "texture": textures, "shape": SHAPES}


DIFFICULTIES: dict[str, Difficulty] = {
    "easy": Difficulty(objects=(1, 2), textures=1, sizes=2, backgrounds=1),
    "medium": Difficulty(objects=(1, 3), textures=3, sizes=3, backgrounds=3, turn=0.2),
    "hard": Difficulty(objects=(2, 4), textures=4, sizes=3, backgrounds=4, turn=0.4, kin=0.5, shaded=True),
}


def make_scene(number: int, seed: int, difficulty: Difficulty) -> Scene:
    """Scene `number` of the world `seed`: no two things have the same words, none overlaps another."""
    attempt = 0
    while True:
        # Only `random()` is drawn: its sequence is the one that Python keeps for ever.
        draw = random.Random(stable_id(f"scene {seed} {number} {attempt}")).random
        scene = _attempt(draw, difficulty)
        if scene is not None:
            return scene
        attempt += 1


def _attempt(draw: Callable[[], float], difficulty: Difficulty) -> Scene | None:
    """A scene, or None if its things found no room."""

    def pick(words: Sequence[str]) -> str:
        return words[int(draw() * len(words))]

    fewest, most = difficulty.objects
    count = fewest + int(draw() * (most - fewest + 1))
    backgrounds = list(BACKGROUNDS)[: difficulty.backgrounds]
    background = second = pick(backgrounds)
    if difficulty.shaded and draw() < 0.5:
        second = pick(backgrounds)
    things: list[Thing] = []
    while len(things) < count:
        shape, colour = pick(SHAPES), pick(_COLOUR_NAMES)
        if things and draw() < difficulty.kin:
            shape, colour = (things[-1].shape, colour) if draw() < 0.5 else (shape, things[-1].colour)
        size, texture = pick(difficulty.size_names), pick(TEXTURES[: difficulty.textures])
        if any(thing.words == (size, colour, texture, shape) for thing in things):
            continue
        low, high = SIZES[size]
        radius = low + (high - low) * draw()
        place = _room(draw, radius, things)
        if place is None:
            return None
        angle = difficulty.turn * (2 * draw() - 1)
        things.append(Thing(shape, colour, size, texture, *place, radius, angle))
    return Scene(tuple(things), background, second)


def _room(draw: Callable[[], float], radius: float, things: Sequence[Thing]) -> tuple[float, float] | None:
    """A centre at which a thing of this radius touches neither the edge nor another."""
    low = radius + EDGE
    for _ in range(_TRIES):
        x, y = low + (1 - 2 * low) * draw(), low + (1 - 2 * low) * draw()
        if all((x - o.x) ** 2 + (y - o.y) ** 2 > (radius + o.radius + GAP) ** 2 for o in things):
            return x, y
    return None
