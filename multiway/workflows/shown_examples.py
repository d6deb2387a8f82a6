"""Some examples of a task with what a model said of them: what a report of a tuned run shows.

They are not the best or the worst: every n-th of those that it got right, and every n-th of those it got wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from multiway.data.examples import Asked, Box, Chosen, Example, Examples, Judged, Pointed
from multiway.data.view import on_background
from multiway.tasks.judging import Verdicts
from multiway.tasks.refer import Pointings
from multiway.tasks.vcr import Choices
from multiway.tasks.vqa import Answered
from multiway.workflows.fusion import spread

__all__ = ["ShownExample", "shown_examples"]

_MEANT, _CHOSEN = "#059669", "#dc2626"
_RIGHT = 0.5
"""An answer is shown among the right ones from here on: scores of VQA are shares, regions are right from this overlap on."""


@dataclass(frozen=True)
class ShownExample:
    """One example.

    Attributes:
        pictures: data URIs.
        text: what was asked or said.
        given: what the model made of it.
        wanted: what is right.
        right: whether it was; partly right counts from a half on.
        group: of the example.
    """

    pictures: list[str]
    text: str
    given: str
    wanted: str
    right: bool
    group: str


def shown_examples(
    examples: Examples[Any], details: Any, uri: Callable[[Image.Image], str], count: int = 5
) -> tuple[list[ShownExample], list[ShownExample]]:
    """Examples that were right and ones that were not, evenly over each.

    Args:
        examples: that the task ran on.
        details: of its result.
        uri: makes a data URI of a picture.
        count: of each at most.

    Returns:
        (right, wrong); both empty where the answers are withheld, or the details are of a kind that is not known here.
    """
    sorted_out: tuple[list[int], list[int]] = ([], [])
    said = dict(_said(examples, details))
    for number, (_, _, right) in said.items():
        sorted_out[0 if right else 1].append(number)

    def shown(number: int) -> ShownExample:
        example = examples.example(number)
        given, wanted, right = said[number]
        pictures = [examples.pictures.image(row) for row in example.pictures]
        if isinstance(example, Pointed):
            pictures = [_drawn(pictures[0], example.boxes, details.boxes[number])]
        return ShownExample([uri(each) for each in pictures], example.text, given, wanted, right, example.group)

    hits, misses = ([shown(number) for number in spread(some, count)] for some in sorted_out)
    return hits, misses


def _said(examples: Examples[Any], details: Any) -> Iterator[tuple[int, tuple[str, str, bool]]]:
    """(number, (given, wanted, right)) of every example whose answer is known."""
    for number in range(len(examples)):
        example = examples.example(number)
        known = _one(example, examples.labels, details, number)
        if known is not None:
            yield number, known


def _one(example: Example, labels: Sequence[str], details: Any, number: int) -> tuple[str, str, bool] | None:
    if isinstance(example, Asked) and isinstance(details, Answered) and example.answers:
        often = sorted(set(example.answers), key=lambda answer: -example.answers.count(answer))
        return details.given[number], ", ".join(often[:3]), details.scores[number] >= _RIGHT
    if isinstance(example, Judged) and isinstance(details, Verdicts) and example.label >= 0:
        return details.given[number], labels[example.label], bool(details.right[number])
    if isinstance(example, Chosen) and isinstance(details, Choices) and example.label >= 0:
        shares = details.answers[number]
        best = max(range(len(shares)), key=shares.__getitem__)
        return example.choices[best], example.choices[example.label], best == example.label
    if isinstance(example, Pointed) and isinstance(details, Pointings) and example.boxes:
        overlap = details.overlap[number]
        return f"a region that overlaps {100 * overlap:.0f} %", "the green frame", overlap >= _RIGHT
    return None


def _drawn(picture: Image.Image, meant: Sequence[Box], chosen: Box) -> Image.Image:
    """The regions that are meant in green, the one that was pointed at in red."""
    shown = on_background(picture, 255).copy()
    pen = ImageDraw.Draw(shown)
    width = max(1, round(max(shown.size) / 60))
    for box, colour in (*((each, _MEANT) for each in meant), (chosen, _CHOSEN)):
        left, top, right, bottom = box
        ends = (left * shown.width, top * shown.height, right * shown.width - 1, bottom * shown.height - 1)
        pen.rectangle(ends, outline=colour, width=width)
    return shown
