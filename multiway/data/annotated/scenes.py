"""Scenes as every benchmark of the field: the same interface as the readers of files, without a file.

    questions        VQA's and GQA's: a question with ten answers
    entailment       SNLI-VE's: a sentence that a picture entails, leaves open or contradicts
    statements       NLVR2's: a sentence that is true of two pictures, or not
    choices          VCR's: four answers to a question, and four reasons for the right one
    expressions      RefCOCO's: words that mean one thing, with the boxes of all things to choose from
    counterfactuals  Winoground's: two captions and two pictures that differ in one fact

Val and test hold all that is said of their gallery, in the order of its pictures. Training is endless and nothing of it is
kept: example n is about scene n, and which of that scene's annotations it is follows from n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from multiway.data.annotated.files import ExampleFiles
from multiway.data.examples import Asked, Chosen, Example, Examples, Judged, Kind, Pictures, Pointed
from multiway.data.scenes.choice import choices
from multiway.data.scenes.counterfactual import counterfactuals
from multiway.data.scenes.draw import draw_scenes
from multiway.data.scenes.entailment import LABELS, triples
from multiway.data.scenes.expressions import expressions
from multiway.data.scenes.graph import Scene
from multiway.data.scenes.questions import questions
from multiway.data.scenes.source import SIDE, Scenes
from multiway.data.scenes.statements import statements
from multiway.data.source import DataError, stable_id

__all__ = ["ANNOTATIONS", "TRUTH", "Annotation", "SceneExamples", "ScenePictures", "open_scenes"]

TRUTH = ("false", "true")
"""Classes of statements and of counterfactual pairs."""

_ASKED = 4  # questions of each picture
_SENTENCES = 1  # of each pair of pictures, stated twice: where it is true and where it is false
_KEPT = 4096  # scenes of which the annotations are remembered
_ROOM = 8  # pictures that one scene's annotations can be about, itself included: numbers are kept free for so many
_LOOKED_AT = 50  # scenes without annotations, one after another, after which there are said to be none

# Enters every fingerprint of training. To be raised whenever the same scene gets another annotation.
_VERSION = 1

Draft = tuple[Example, tuple[Scene, ...]]  # an example without its pictures, and what they show


def _questions(source: Scenes, row: int) -> Iterator[Draft]:
    scene = source.scene(row)
    for each in questions(scene, _ASKED, source.options.seed):
        yield Asked("", (), each.text, "", each.kind, each.answers), (scene,)


def _entailment(source: Scenes, row: int) -> Iterator[Draft]:
    scene = source.scene(row)
    for each in triples(scene, source.options.seed):
        yield Judged("", (), each.hypothesis, label=LABELS.index(each.label)), (scene,)


def _statements(source: Scenes, row: int) -> Iterator[Draft]:
    """Each about this picture and the next one's, or one of them changed; the two of one sentence are twins."""
    pair = source.scene(row), source.scene((row + 1) % len(source))
    twins: dict[str, int] = {}
    for each in statements(*pair, source.options.world, source.options.seed, _SENTENCES):
        twin = f"{row}-{twins.setdefault(each.group, len(twins))}"
        yield Judged("", (), each.text, label=int(each.true), twin=twin), (each.left, each.right)


def _choices(source: Scenes, row: int) -> Iterator[Draft]:
    scene = source.scene(row)
    for each in choices(scene, source.options.seed):
        chosen = Chosen("", (), each.question, "", each.kind, each.answers, each.answer, each.reasons, each.reason)
        yield chosen, (scene,)


def _expressions(source: Scenes, row: int) -> Iterator[Draft]:
    scene = source.scene(row)
    boxes = tuple(thing.box for thing in scene.things)
    for each in expressions(scene):
        yield Pointed("", (), each.text, "", each.kind, (each.box,), boxes), (scene,)


def _counterfactuals(source: Scenes, row: int) -> Iterator[Draft]:
    """Each caption against each picture, in the order of a Winoground score: caption 0 and 1 with picture 0, then with 1."""
    found = counterfactuals(source.scene(row), source.options.world, source.options.seed)
    for number, each in enumerate(found):
        for scene, own in ((each.scene, each.caption), (each.changed, each.changed_caption)):
            for caption in (each.caption, each.changed_caption):
                twin = f"{row}-{number}"
                yield Judged("", (), caption, "", each.kind, int(caption == own), twin), (scene,)


@dataclass(frozen=True)
class Annotation:
    """One thing that scenes are annotated with.

    Attributes:
        kind: of its examples.
        tasks: names of tasks and benchmarks that mean it.
        make: examples of one row of a world.
        labels: classes of judged examples.
    """

    kind: Kind
    tasks: tuple[str, ...]
    make: Callable[[Scenes, int], Iterator[Draft]]
    labels: tuple[str, ...] = ()


ANNOTATIONS: dict[str, Annotation] = {
    "questions": Annotation("asked", ("vqa", "gqa", "vg", "vqa-generate", "gqa-generate"), _questions),
    "entailment": Annotation("judged", ("snli-ve", "snli_ve", "ve"), _entailment, LABELS),
    "statements": Annotation("judged", ("nlvr2",), _statements, TRUTH),
    "choices": Annotation("chosen", ("vcr",), _choices),
    "expressions": Annotation("pointed", ("refcoco", "refcoco+", "refcocog", "grounding"), _expressions),
    "counterfactuals": Annotation("judged", ("winoground",), _counterfactuals, TRUTH),
}


class ScenePictures:
    """Scenes by number, drawn when they are asked for; satisfies `Pictures` and `DrawsBatches`.

    Args:
        scenes: how many there are.
        scene: the scene of each number.
    """

    def __init__(self, scenes: int, scene: Callable[[int], Scene]) -> None:
        self._scenes = scenes
        self.scene = scene

    def __len__(self) -> int:
        return self._scenes

    def image(self, index: int) -> Image.Image:
        """The picture, 128 x 128, RGB."""
        return Image.fromarray(draw_scenes([self.scene(index)], SIDE)[0])

    def squares(self, rows: np.ndarray, side: int) -> np.ndarray:
        """Pictures of numbers (B,), drawn at that side: (B, side, side, 3) uint8."""
        return draw_scenes([self.scene(int(row)) for row in rows], side)


class SceneExamples:
    """The endless training split of one annotation; satisfies `Examples`, `HasNotes` and `KnowsAnswered`.

    Args:
        source: the world's training split.
        name: of `ANNOTATIONS`.

    Raises:
        DataError: if its scenes have no such annotations.
    """

    split = "train"
    answered = True
    rejected: Sequence[object] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, source: Scenes, name: str) -> None:
        self._source, self._annotation, self._said = source, ANNOTATIONS[name], name
        self.name, self.kind, self.labels = source.name, self._annotation.kind, self._annotation.labels
        self.pictures: Pictures = ScenePictures(len(source) * _ROOM, self._scene)
        self.fingerprint = f"{stable_id(f'{source.fingerprint} {name} {_VERSION}'):016x}"
        self._drafts = lru_cache(maxsize=_KEPT)(lambda row: tuple(self._annotation.make(source, row)))
        self._row(0)

    def __len__(self) -> int:
        return len(self._source)

    def example(self, index: int) -> Example:
        """One example; draws no picture."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {self.name}@train, which has {len(self):,}")
        row = self._row(index)
        drafts = self._drafts(row)
        example, scenes = drafts[stable_id(f"{self._said} {self._source.options.seed} {index}") % len(drafts)]
        shown = _shown(drafts)
        pictures = tuple(row * _ROOM + shown.index(scene) for scene in scenes)
        return _placed(example, f"train-{index}", pictures, f"{self.name}@train, example {index}")

    def _row(self, index: int) -> int:
        """The first scene from this one on that has annotations."""
        for row in range(index, index + _LOOKED_AT):
            if self._drafts(row % len(self)):
                return row % len(self)
        raise DataError(_none(self.name, "train", self._said))

    def _scene(self, number: int) -> Scene:
        return _shown(self._drafts(number // _ROOM))[number % _ROOM]


def _shown(drafts: Sequence[Draft]) -> list[Scene]:
    """The different scenes that a row's annotations are about, in order."""
    shown: dict[Scene, None] = dict.fromkeys(scene for _, scenes in drafts for scene in scenes)
    assert len(shown) <= _ROOM, "two rows would share a number"
    return list(shown)


def _placed(example: Example, key: str, pictures: tuple[int, ...], where: str) -> Example:
    return replace(example, key=key, pictures=pictures, where=where)


def _none(name: str, split: str, said: str) -> str:
    return f"{name}@{split} has no {said}: its scenes hold too little; take a greater difficulty or more objects"


def open_scenes(annotation: str, split: str = "test", options: str = "") -> Examples[Any]:
    """One split of a world, annotated.

    Args:
        annotation: of `ANNOTATIONS`, or a task that means one.
        split: `train`, `val` or `test`.
        options: of the world: `hard`, `easy,gallery=200`.

    Raises:
        DataError: for what does not exist, with what does.
    """
    name = next((each for each, one in ANNOTATIONS.items() if annotation in (each, *one.tasks)), None)
    if name is None:
        known = "; ".join(f"{each} ({', '.join(one.tasks)})" for each, one in ANNOTATIONS.items())
        raise DataError(f"scenes are not annotated for {annotation!r}; they have {known}")
    source = Scenes.open(split, options)
    if split == "train":
        return SceneExamples(source, name)
    own = ANNOTATIONS[name]
    numbers: dict[Scene, int] = {}
    examples: list[Example] = []
    for row in range(len(source)):
        where = source.row(row).where
        for place, (example, scenes) in enumerate(own.make(source, row)):
            pictures = tuple(numbers.setdefault(scene, len(numbers)) for scene in scenes)
            examples.append(_placed(example, f"{split}-{row}-{place}", pictures, f"{where}, {name} {place + 1}"))
    if not examples:
        raise DataError(_none(source.name, split, name))
    shown = list(numbers)
    return ExampleFiles(
        source.name, split, own.kind, examples, ScenePictures(len(shown), shown.__getitem__), own.labels
    )
