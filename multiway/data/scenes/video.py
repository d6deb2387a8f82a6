"""Short videos of moving shapes: a scene whose things set off, turn round at walls and at each other, or stay.

A frame is a scene, so that frames are drawn as pictures are. What the caption says of a motion is read off the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from multiway.data.scenes.counterfactual import has_room
from multiway.data.scenes.dice import Dice
from multiway.data.scenes.graph import Scene
from multiway.data.scenes.words import describe, distinguishing

__all__ = ["MOTIONS", "Video", "make_video"]

_DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
_SPEEDS = (0.03, 0.05, 0.07)  # shares of the side per frame
_STILL = 0.3  # share of things that stay

MOTIONS = (
    "stays",
    "is stuck",
    *(f"moves {way}{back}" for way in _DIRECTIONS for back in ("", " and back", " to and fro")),
)


@dataclass(frozen=True)
class Video:
    """Frames and what happens in them.

    Attributes:
        frames: T scenes; only the things' places differ.
        motions: of each thing, one of `MOTIONS`.
        caption: names each thing that can be named, with its motion; empty where none can be.
    """

    frames: tuple[Scene, ...]
    motions: tuple[str, ...]
    caption: str


def make_video(scene: Scene, seed: int = 0, frames: int = 8) -> Video:
    """A video that begins with a scene.

    Args:
        scene: the first frame.
        seed: of directions and speeds.
        frames: T, at least 2.

    Raises:
        ValueError: for fewer than two frames.
    """
    if frames < 2:
        raise ValueError(f"a video of {frames} frames; at least 2 are needed for anything to move")
    dice = Dice("video", scene, seed)
    names = [distinguishing(scene.things, place) for place in range(len(scene.things))]
    ways, speeds = [], []
    for name in names:
        # A thing that cannot be named in the caption stays, so that the caption tells all that moves.
        still = dice.draw() < _STILL or name is None
        way, speed = dice.pick(tuple(_DIRECTIONS)), dice.pick(_SPEEDS)
        ways.append(way)
        speeds.append(0.0 if still else speed)
    steps = [[way[0] * speed, way[1] * speed] for way, speed in zip(map(_DIRECTIONS.get, ways), speeds, strict=True)]  # type: ignore[index]
    shots = [scene]
    for _ in range(frames - 1):
        shots.append(_advance(shots[-1], steps))
    motions = tuple(
        _motion([(shot.things[place].x, shot.things[place].y) for shot in shots], speeds[place])
        for place in range(len(scene.things))
    )
    told = [
        f"the {describe(thing, name)} {motion}"
        for thing, name, motion in zip(scene.things, names, motions, strict=True)
        if name is not None
    ]
    return Video(tuple(shots), motions, _listed(told))


def _advance(scene: Scene, steps: list[list[float]]) -> Scene:
    """The next frame. What would touch a wall or another thing turns round; what cannot go back either waits."""
    for place, (dx, dy) in enumerate(steps):
        if dx == dy == 0.0:
            continue
        for sign in (1, -1):
            thing = scene.things[place]
            moved = replace(thing, x=thing.x + sign * dx, y=thing.y + sign * dy)
            after = replace(scene, things=(*scene.things[:place], moved, *scene.things[place + 1 :]))
            if has_room(after):
                scene, steps[place] = after, [sign * dx, sign * dy]
                break
    return scene


def _motion(path: Sequence[tuple[float, float]], speed: float) -> str:
    """A word for a path along one axis: by its first step and the number of turns."""
    if speed == 0.0:
        return "stays"
    ways = []
    for (x, y), (nx, ny) in pairwise(path):
        if (x, y) != (nx, ny):
            ways.append(("left" if nx < x else "right") if nx != x else ("up" if ny < y else "down"))
    if not ways:
        return "is stuck"
    turns = sum(one != other for one, other in pairwise(ways))
    return f"moves {ways[0]}{('', ' and back')[turns] if turns < 2 else ' to and fro'}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else ""
