"""Everything that is known of one scene, put together: what later tasks take their parts of, and contact sheets show."""

from __future__ import annotations

from dataclasses import dataclass

from multiway.data.scenes.choice import Choice, choices
from multiway.data.scenes.counterfactual import Counterfactual, counterfactuals
from multiway.data.scenes.entailment import Triple, triples
from multiway.data.scenes.expressions import Expression, expressions
from multiway.data.scenes.graph import Scene
from multiway.data.scenes.questions import Question, questions
from multiway.data.scenes.source import Scenes
from multiway.data.scenes.statements import Statement, statements
from multiway.data.scenes.video import Video, make_video

__all__ = ["Annotations", "annotate"]


@dataclass(frozen=True)
class Annotations:
    """One row of a world with all that is said, asked and known of it.

    Attributes:
        scene: the graph; masks of its things are `draw.masks(scene, side)`.
        captions: as the row has them, noise included.
        expressions: for each thing that can be told, words and box.
        questions: with ten answers each.
        triples: a hypothesis that is entailed, one that is neutral, one that is contradicted.
        choices: four answers and four reasons.
        counterfactuals: scenes that differ in one fact.
        statements: about this picture and the next row's, by twos.
        video: that begins with the scene.
    """

    scene: Scene
    captions: tuple[str, ...]
    expressions: tuple[Expression, ...]
    questions: tuple[Question, ...]
    triples: tuple[Triple, ...]
    choices: tuple[Choice, ...]
    counterfactuals: tuple[Counterfactual, ...]
    statements: tuple[Statement, ...]
    video: Video


def annotate(source: Scenes, row: int, asked: int = 4, frames: int = 8) -> Annotations:
    """All annotations of one row.

    Args:
        source: a split of scenes.
        row: of it.
        asked: how many questions, and how many statements, at most.
        frames: of the video.
    """
    scene, seed, world = source.scene(row), source.options.seed, source.options.world
    beside = source.scene((row + 1) % len(source))
    return Annotations(
        scene,
        source.row(row).captions,
        expressions(scene),
        questions(scene, asked, seed),
        triples(scene, seed),
        choices(scene, seed),
        counterfactuals(scene, world, seed),
        statements(scene, beside, world, seed, asked),
        make_video(scene, seed, frames),
    )
