"""The noise dial: captions that are wrong in known ways, as those from the web are in unknown ones.

Of every row a share gets captions of another scene in place of its own:

- `attribute`: one word of one thing is wrong;
- `missing`: one thing is not mentioned, so the caption says that less is there than there is. A lone thing cannot
  be left out; where this falls on one, it gets a wrong attribute, and the record says so;
- `junk`: a file name or a shop's phrase, which says nothing;
- `swap`: the captions of another picture.

What was done to a row is a function of (seed, row), and recorded, so that filters and robust losses have a ground truth.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from multiway.data.scenes.graph import Difficulty, Scene
from multiway.data.scenes.words import CLASSES
from multiway.data.source import stable_id

__all__ = ["KINDS", "Noise", "NoiseShares", "junk", "without_one", "wrong_word"]

KINDS = ("attribute", "missing", "junk", "swap")

Draw = Callable[[], float]


@dataclass(frozen=True)
class Noise:
    """What was done to one row's captions.

    Attributes:
        kind: of `KINDS`, or `none`.
        true: the plainest caption that is true of the picture.
        given: what stands in its place; the same where nothing was done.
    """

    kind: str
    true: str
    given: str


@dataclass(frozen=True)
class NoiseShares:
    """Share of the rows, in [0, 1], that get each kind of noise; at most 1 together."""

    attribute: float = 0.0
    missing: float = 0.0
    junk: float = 0.0
    swap: float = 0.0

    def __post_init__(self) -> None:
        shares = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"the share of {name} is {share}; expected a number from 0 to 1")
        if sum(shares.values()) > 1 + 1e-9:
            said = ", ".join(f"{name} {share}" for name, share in shares.items() if share)
            raise ValueError(f"the shares of noise ({said}) are more than 1 together; lower some of them")

    def __bool__(self) -> bool:
        return any(getattr(self, kind) > 0 for kind in KINDS)

    def draw(self, seed: int, row: int) -> tuple[str, Draw]:
        """The kind of noise that falls on a row, `none` mostly, and uniform numbers for how it is carried out."""
        draw = random.Random(stable_id(f"noise {seed} {row}")).random
        left = draw()
        for kind in KINDS:
            left -= getattr(self, kind)
            if left < 0:
                return kind, draw
        return "none", draw


def wrong_word(scene: Scene, difficulty: Difficulty, draw: Draw) -> Scene:
    """The scene with one word of one thing changed for another that the world knows; places stay.

    No two things get the same words. Where the world knows one texture or size only, another class is changed.
    """
    known = difficulty.words
    classes = [kind for kind in CLASSES if len(known[kind]) > 1]
    while True:
        place = int(draw() * len(scene.things))
        kind = classes[int(draw() * len(classes))]
        word = known[kind][int(draw() * len(known[kind]))]
        old = scene.things[place]
        changed = replace(old, **{kind: word})  # type: ignore[arg-type]
        if all(changed.words != other.words for other in scene.things):
            return replace(scene, things=(*scene.things[:place], changed, *scene.things[place + 1 :]))


def without_one(scene: Scene, draw: Draw) -> Scene:
    """The scene with one of its things, at least two, left out."""
    place = int(draw() * len(scene.things))
    return replace(scene, things=scene.things[:place] + scene.things[place + 1 :])


_PHRASES = (
    "IMG_{:04}.jpg",
    "DSC{:05}.JPG",
    "image {}",
    "untitled-{}.png",
    "screenshot {:03}",
    "stock photo shapes free download",
    "royalty free vector clip art {}",
    "best price, click to enlarge",
    "file {} of album",
    "thumbnail",
    "logo design template, eps {}",
    "no description available",
)


def junk(draw: Draw) -> str:
    """What stands in alternative texts of the web where nobody described the picture."""
    return _PHRASES[int(draw() * len(_PHRASES))].format(int(draw() * 10_000))
