"""Counterfactual pairs: a scene, and one that differs from it in a single fact, with captions that tell which is which.

One attribute of one thing, one relation between two, or the number of things is changed; everything else, down to the
turn of each shape, stays. A model that knows the words but not what belongs to what scores both captions alike, which
is what Winoground (Thrush et al., 2022, arXiv 2204.03162) asks of pictures made by people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from multiway.data.scenes.dice import Dice
from multiway.data.scenes.grammar import captions
from multiway.data.scenes.graph import (
    EDGE,
    GAP,
    SIZES,
    Difficulty,
    Scene,
    Thing,
    relation,
)
from multiway.data.scenes.parse import parse
from multiway.data.scenes.words import CLASSES

__all__ = ["Counterfactual", "Kind", "changes", "counterfactuals", "has_room"]

Kind = Literal["attribute", "relation", "count"]

_TRIES = 60  # changes drawn of each kind before it is given up
_CAPTIONS = 8  # captions looked at for one that is false of the other picture


@dataclass(frozen=True)
class Counterfactual:
    """Two scenes that differ in one fact.

    Attributes:
        kind: of the fact.
        scene, changed: before and after.
        caption, changed_caption: each true of its own scene and false of the other.
        fact: what changed: `colour of the first thing: red, not blue`.
    """

    kind: Kind
    scene: Scene
    changed: Scene
    caption: str
    changed_caption: str
    fact: str


def has_room(scene: Scene) -> bool:
    """Whether its things touch neither the edge nor each other, as in every scene of the world."""
    things = scene.things
    inside = all(t.radius + EDGE <= min(t.x, t.y) and max(t.x, t.y) <= 1 - t.radius - EDGE for t in things)
    apart = all(
        (a.x - b.x) ** 2 + (a.y - b.y) ** 2 > (a.radius + b.radius + GAP) ** 2
        for number, a in enumerate(things)
        for b in things[:number]
    )
    return inside and apart


def counterfactuals(scene: Scene, difficulty: Difficulty, seed: int = 0) -> tuple[Counterfactual, ...]:
    """At most one of each kind: a lone thing has no relation, and a crowded scene may have no room for another."""
    found = []
    for kind in ("attribute", "relation", "count"):
        for changed, fact in changes(scene, difficulty, kind, seed):
            own, other = _only(scene, changed), _only(changed, scene)
            if own is not None and other is not None:
                found.append(Counterfactual(kind, scene, changed, own, other, fact))  # type: ignore[arg-type]
                break
    return tuple(found)


def changes(scene: Scene, difficulty: Difficulty, kind: str, seed: int = 0) -> Iterator[tuple[Scene, str]]:
    """Scenes that differ in one fact of a kind, and that fact in words; drawn anew until there were enough.

    Raises:
        ValueError: for another kind.
    """
    change = {"attribute": _attribute, "relation": _relation, "count": _count}.get(kind)
    if change is None:
        raise ValueError(f"there are no counterfactuals of kind {kind!r}; kinds are attribute, relation, count")
    dice = Dice(f"counterfactual {kind}", scene, seed)
    for _ in range(_TRIES):
        changed = change(scene, difficulty, dice)
        if changed is not None and has_room(changed[0]):
            yield changed


def _only(scene: Scene, other: Scene) -> str | None:
    """A caption that is true of `scene` and false of `other`, the plainest if it is one."""
    for caption in captions(scene, _CAPTIONS, "full"):
        if not parse(caption).holds(other):
            return caption
    return None


def _with(scene: Scene, place: int, thing: Thing) -> Scene:
    return replace(scene, things=(*scene.things[:place], thing, *scene.things[place + 1 :]))


def _attribute(scene: Scene, difficulty: Difficulty, dice: Dice) -> tuple[Scene, str] | None:
    place, kind = int(dice.draw() * len(scene.things)), dice.pick(CLASSES)
    old = scene.things[place]
    others = [word for word in difficulty.words[kind] if word != getattr(old, kind)]
    if not others:
        return None
    word = dice.pick(others)
    new = replace(old, **{kind: word})  # type: ignore[arg-type]
    if kind == "size":
        low, high = SIZES[word]
        new = replace(new, radius=low + (high - low) * dice.draw())
    if any(new.words == other.words for other in scene.things):
        return None
    return _with(scene, place, new), f"{kind}: {getattr(old, kind)}, then {word}"


def _relation(scene: Scene, difficulty: Difficulty, dice: Dice) -> tuple[Scene, str] | None:
    """Move one thing so that its relation to one other is another, and those to all the rest are as they were."""
    if not scene.relations:
        return None
    each = dice.pick(scene.relations)
    moving, fixed = scene.things[each.subject], scene.things[each.object]
    moved = replace(moving, x=dice.draw(), y=dice.draw())
    after = relation(moved, fixed)
    rest = [other for other in scene.things if other is not moving and other is not fixed]
    if after in (None, each.name) or any(relation(moved, other) != relation(moving, other) for other in rest):
        return None
    return _with(scene, each.subject, moved), f"relation: {each.name}, then {after}"


def _count(scene: Scene, difficulty: Difficulty, dice: Dice) -> tuple[Scene, str] | None:
    """Take a thing away, or put one in."""
    count = len(scene.things)
    fewest, most = max(1, difficulty.objects[0]), difficulty.objects[1]
    fewer, more = count > fewest, count < most
    if fewer and (not more or dice.draw() < 0.5):
        place = int(dice.draw() * count)
        return replace(
            scene, things=scene.things[:place] + scene.things[place + 1 :]
        ), f"count: {count}, then {count - 1}"
    if not more:
        return None
    words = {kind: dice.pick(known) for kind, known in difficulty.words.items()}
    low, high = SIZES[words["size"]]
    new = Thing(
        words["shape"],
        words["colour"],
        words["size"],
        words["texture"],
        x=dice.draw(),
        y=dice.draw(),
        radius=low + (high - low) * dice.draw(),
    )
    if any(new.words == other.words for other in scene.things):
        return None
    return replace(scene, things=(*scene.things, new)), f"count: {count}, then {count + 1}"
