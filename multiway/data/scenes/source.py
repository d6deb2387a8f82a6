"""The scenes as a data set: `scenes`, `scenes:easy@test`, `scenes:hard,objects=2-3,swap=0.4`, ...

Nothing is stored: row n is drawn when it is asked for. The training split is endless; `samples` says how many of its
scenes are called an epoch. Val and test come from numbers that training never reaches, and no two of the pictures
of one of them have the same content, so each of their captions is true of one picture only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from multiway.data.scenes.draw import draw_scenes
from multiway.data.scenes.grammar import KINDS, captions
from multiway.data.scenes.graph import Difficulty, Scene, make_scene
from multiway.data.scenes.noise import Noise, junk, without_one, wrong_word
from multiway.data.scenes.options import SAMPLES_LIMIT, SceneOptions
from multiway.data.scenes.parse import parse
from multiway.data.scenes.words import WORD_CLASSES
from multiway.data.source import DataError, Row, stable_id

__all__ = ["SIDE", "SPLITS", "Scenes"]

SPLITS = ("train", "val", "test")

SIDE = 128
"""Side of the pictures that `Scenes.image` draws, in pixels."""

# The number of each split's first scene. Training has at most SAMPLES_LIMIT scenes, far fewer than lie between.
_FIRST = {"train": 0, "val": 1 << 40, "test": 1 << 41}

_TEMPLATES = {"shape": ("a {}", "a picture of a {}", "{}"), "colour": ("a {} shape", "a picture of a {} shape", "{}")}
_PARAPHRASES = {"train": 4, "val": 2, "test": 2}
_TRIES = 50  # scenes looked at for each that a gallery keeps, before the world is called too small

# Enters every fingerprint. To be raised whenever the same number gives another scene, picture or caption.
_VERSION = 1


@lru_cache(maxsize=1 << 13)
def _scene(number: int, seed: int, difficulty: Difficulty) -> Scene:
    return make_scene(number, seed, difficulty)


@lru_cache(maxsize=8)
def _gallery(first: int, count: int, seed: int, difficulty: Difficulty) -> tuple[int, ...]:
    """Numbers, from `first` on, of scenes of different content."""
    kept: list[int] = []
    seen: set[object] = set()
    for number in range(first, first + _TRIES * count + 1000):
        if len(kept) == count:
            return tuple(kept)
        content = _scene(number, seed, difficulty).content
        if content not in seen:
            seen.add(content)
            kept.append(number)
    raise DataError(
        f"this world of scenes has too few different contents for a gallery of {count:,}: {len(kept):,} were found; "
        "lower gallery=, or take a greater difficulty or more objects"
    )


class Scenes:
    """One split of a world of scenes; satisfies `Source`, `DrawsBatches`, `KnowsWords` and `KnowsTruth`.

    With one object in every picture (`objects=1`) its shape, or its colour, is the picture's class.

    Args:
        split: `train`, `val` or `test`.
        options: which world, how large, with which captions and how noisy.

    Raises:
        DataError: for another split, or a gallery larger than the world's variety.
    """

    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    word_classes: Mapping[str, tuple[str, ...]] = WORD_CLASSES

    def __init__(self, split: str = "train", options: SceneOptions | None = None) -> None:
        if split not in SPLITS:
            raise DataError(f"scenes have no split {split!r}; they have {', '.join(SPLITS)}")
        self.split = split
        self.options = options or SceneOptions()
        said = self.options.said(training=split == "train")
        self.name = "scenes" + (f":{said}" if said else "")
        self._difficulty = self.options.world
        if self._difficulty.objects == (1, 1):  # of one thing it can be asked what it is
            self._classed = self.options.classes or "shape"
            self.classes, self.templates = self._difficulty.words[self._classed], _TEMPLATES[self._classed]
        elif self.options.classes:
            raise DataError(f"{self.name} has no classes: of several things none is the picture's; add objects=1")
        self._numbers: Sequence[int] = range(self.options.samples)
        if split != "train":
            first, count = _FIRST[split], self.options.gallery
            repeats = range(first, first + count)
            self._numbers = (
                repeats if self.options.classes else _gallery(first, count, self.options.seed, self._difficulty)
            )
        self.fingerprint = f"{stable_id(f'scenes {_VERSION} {split} {said} {len(self._numbers)}'):016x}"

    @classmethod
    def open(cls, split: str = "train", options: str = "") -> Scenes:
        """One split, with options as they stand in the data's name: `hard,objects=2-3,samples=200000`.

        Raises:
            DataError: for an option or a value that does not exist, with those that do.
        """
        return cls(split, SceneOptions.parse(options))

    def __len__(self) -> int:
        return len(self._numbers)

    def scene(self, row: int) -> Scene:
        """What the picture of a row shows."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {self.name}@{self.split}, which has {len(self):,}")
        return _scene(int(self._numbers[row]), self.options.seed, self._difficulty)

    def row(self, index: int) -> Row:
        """Captions of one scene, noisy ones if the options say so; the group is its number of things."""
        scene, number = self.scene(index), self._numbers[index]
        count = len(scene.things)
        return Row(
            f"{self.split}-{index}",
            stable_id(f"scenes {self.options.seed} {self._difficulty} {number}"),
            self._captions(index, scene)[1],
            self.classes.index(getattr(scene.things[0], self._classed)) if self.classes else -1,
            where=f"{self.name}@{self.split}, scene {number}",
            group=f"{count} object{'s' if count > 1 else ''}",
        )

    def noise(self, row: int) -> Noise:
        """What was done to a row's captions, beside the plainest true caption."""
        scene = self.scene(row)
        kind, given = self._captions(row, scene)
        return Noise(kind, captions(scene, 1, "full", self.options.seed)[0], given[0])

    def noise_kind(self, row: int) -> str:
        """What was done to a row's captions: of `noise.KINDS`, or `none`."""
        return self._captions(row, self.scene(row))[0]

    def holds(self, row: int, caption: str) -> bool:
        """Whether a caption is a sentence of the grammar, and true of the row's picture."""
        try:
            claim = parse(caption)
        except ValueError:
            return False
        return claim.holds(self.scene(row))

    def _captions(self, row: int, scene: Scene) -> tuple[str, tuple[str, ...]]:
        """The kind of noise, and the captions that the row gets.

        Noisy captions are always full ones: only of those is it certain that they are false of the picture.
        """
        seed, count = self.options.seed, _PARAPHRASES[self.split]
        kind, draw = (
            self.options.noise.draw(seed, row) if self.options.noise and self.split == "train" else ("none", None)
        )
        if draw is None or kind == "none":
            full = captions(scene, count, "full", seed)
            return "none", full if self.options.captions == "full" or self.split != "train" else full + self._partial(
                scene
            )
        if kind == "junk":
            return kind, (junk(draw),)
        if kind == "missing" and len(scene.things) == 1:
            kind = "attribute"
        if kind == "missing":
            told = without_one(scene, draw)
        elif kind == "attribute":
            told = wrong_word(scene, self._difficulty, draw)
        else:
            told = scene
            while told.content == scene.content:  # not only of this epoch, which may have one scene
                told = _scene(int(draw() * SAMPLES_LIMIT), seed, self._difficulty)
        return kind, captions(told, count, "full", seed)

    def _partial(self, scene: Scene) -> tuple[str, ...]:
        """One or two captions of each further kind."""
        return tuple(
            caption
            for kind, count in zip(KINDS[1:], (2, 1, 1), strict=True)
            for caption in captions(scene, count, kind, self.options.seed)
        )

    def image(self, index: int) -> Image.Image:
        """The picture, 128 x 128, RGB."""
        return Image.fromarray(draw_scenes([self.scene(index)], SIDE)[0])

    def squares(self, rows: np.ndarray, side: int) -> np.ndarray:
        """Pictures of rows (B,), drawn at that side: (B, side, side, 3) uint8."""
        return draw_scenes([self.scene(int(row)) for row in rows], side)

    def sample_captions(self, count: int) -> Iterator[str]:
        """Captions of every kind of the world's first `count` training scenes: what a tokeniser is trained on."""
        for number in range(count):
            scene = _scene(number, self.options.seed, self._difficulty)
            for kind in KINDS:
                yield from captions(scene, 2, kind, self.options.seed)

    @property
    def tokenizer_captions(self) -> tuple[str, ...]:
        """Enough captions that every word is among them, since those of all rows would be endless."""
        return tuple(self.sample_captions(3000))
