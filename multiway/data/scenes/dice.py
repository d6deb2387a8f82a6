"""Choices that are a function of what they are made for: the same scene and seed always throw the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from multiway.data.scenes.graph import Scene
from multiway.data.source import stable_id

__all__ = ["Dice"]

Item = TypeVar("Item")


class Dice:
    """Draws for one purpose, one scene and one seed.

    Args:
        purpose: what the draws are for, so that questions and videos of a scene do not share theirs.
        scene: the scene, which enters by what identifies it: its background and its things.
        seed: of the world, or of a further round.
    """

    def __init__(self, purpose: str, scene: Scene, seed: int) -> None:
        things = " ".join(f"{' '.join(thing.words)} {thing.x} {thing.y}" for thing in scene.things)
        # Only `random()` is drawn: its sequence is the one that Python keeps for ever.
        self.draw = random.Random(stable_id(f"{purpose} {seed} {scene.background} {things}")).random

    def pick(self, items: Sequence[Item]) -> Item:
        """One of them, evenly."""
        return items[int(self.draw() * len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """All of them, every order equally likely."""
        left = list(items)
        return [left.pop(int(self.draw() * len(left))) for _ in range(len(left))]
