"""Visual commonsense reasoning: the right one of four answers, and the right one of four reasons for it.

Zellers et al., From Recognition to Cognition, CVPR 2019, arXiv 1811.10830. One model scores texts beside the picture: question
and answer for Q->A; question, right answer and reason for QA->R, as the benchmark has it, whatever was answered. Q->AR is the
share of examples in which both are right. Chance: 1/4, 1/4 and, for both, 1/16, or one over the choices that there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from multiway.abilities import require
from multiway.data.example_loader import Wanted
from multiway.data.examples import Chosen, Examples, Kind
from multiway.data.source import stable_id
from multiway.tasks import statistics
from multiway.tasks.example_task import accuracies, encoded, require_examples
from multiway.tasks.task import Metric, Result, collect

__all__ = ["Choices", "Vcr"]


@dataclass(frozen=True)
class Choices:
    """What was chosen: details of the result.

    Attributes:
        keys: of each example, in the order of the examples.
        answers, reasons: (N, C) probabilities of each choice; reasons are given the right answer, where it is known.
    """

    keys: tuple[str, ...]
    answers: tuple[tuple[float, ...], ...]
    reasons: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Vcr:
    """Four-way choice with reasons."""

    name: str = "vcr"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "choose")
    kind: ClassVar[Kind] = "chosen"
    pictures: ClassVar[int] = 1
    best: ClassVar[str] = "Q->AR"

    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def answers(self, examples: Examples[Chosen]) -> tuple[str, ...]:
        """Nothing is listed: every example has choices of its own."""
        return ()

    def wanted(self, answers: Sequence[str]) -> Wanted:
        """An answer to choose, or a reason: which of the two an example asks for follows from its key, half and half."""

        def texts(example: Chosen) -> tuple[Sequence[str], int]:
            if example.reasons and example.reason >= 0 and stable_id(example.key) % 2:
                return _reasons(example), example.reason
            return _answers(example), example.label

        return Wanted(texts=texts)

    def run(self, model: Any, examples: Examples[Chosen]) -> Result:
        """Score every choice.

        Raises:
            LacksAbility: if the model was not tuned to choose.
            DataError: for examples of another kind.
        """
        require(model, self.needs, self.name)
        require_examples(self.name, examples, self.kind, self.pictures)
        rows = [examples.example(number) for number in range(len(examples))]
        shares: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0), np.zeros(0))] * len(rows)
        texts = [[*_answers(row), *(_reasons(row) if row.label >= 0 else ())] for row in rows]
        for numbers, (pictures,), said in encoded(model, examples, texts):
            scores, start = model.choose(pictures, said).numpy(), 0
            for number in numbers:
                stop, row = start + len(texts[number]), rows[number]
                middle = start + len(row.choices)
                shares[number] = _softmax(scores[start:middle]), _softmax(scores[middle:stop])
                start = stop
        details = Choices(
            tuple(row.key for row in rows), *(tuple(tuple(map(float, each[i])) for each in shares) for i in (0, 1))
        )
        return collect(self, examples, self.metrics(rows, shares), details)

    def metrics(self, rows: Sequence[Chosen], shares: Sequence[tuple[np.ndarray, np.ndarray]]) -> Iterator[Metric]:
        """The three accuracies, each over all and by kind of question."""
        known = [(row, each) for row, each in zip(rows, shares, strict=True) if row.label >= 0]
        if not known:
            return
        answered = [float(each[0].argmax() == row.label) for row, each in known]
        yield from self._one("Q->A", [row for row, _ in known], answered, [1 / len(row.choices) for row, _ in known])
        both = [(row, each, hit) for (row, each), hit in zip(known, answered, strict=True) if row.reason >= 0]
        if both:
            own = [row for row, _, _ in both]
            reasoned = [float(each[1].argmax() == row.reason) for row, each, _ in both]
            odds = [1 / len(row.reasons) for row in own]
            yield from self._one("QA->R", own, reasoned, odds)
            joint = [hit * other for (_, _, hit), other in zip(both, reasoned, strict=True)]
            yield from self._one("Q->AR", own, joint, [a / len(row.choices) for a, row in zip(odds, own, strict=True)])

    def _one(self, name: str, rows: Sequence[Chosen], hits: Sequence[float], odds: Sequence[float]) -> Iterator[Metric]:
        groups = [row.group for row in rows]
        chances = {
            group: float(np.mean([o for o, g in zip(odds, groups, strict=True) if g == group])) for group in groups
        }
        units = [row.pictures[0] for row in rows]
        yield from accuracies(name, hits, units, groups, float(np.mean(odds)), chances, self.resamples, self.seed)

    def submission(self, result: Result) -> list[dict[str, Any]]:
        """Probabilities of each choice, by the names of the columns of VCR's submission."""
        found: Choices = result.details
        return [
            {"annot_id": key}
            | {f"answer_{place}": share for place, share in enumerate(answers)}
            | {f"rationale_{place}": share for place, share in enumerate(reasons)}
            for key, answers, reasons in zip(found.keys, found.answers, found.reasons, strict=True)
        ]


def _answers(example: Chosen) -> list[str]:
    return [f"{example.text} {choice}" for choice in example.choices]


def _reasons(example: Chosen) -> list[str]:
    return [f"{example.text} {example.choices[example.label]} {reason}" for reason in example.reasons]


def _softmax(scores: np.ndarray) -> np.ndarray:
    if not len(scores):
        return scores
    shares = np.exp(scores - scores.max())
    return shares / shares.sum()  # type: ignore[no-any-return]
