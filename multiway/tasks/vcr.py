"""Visual commonsense reasoning: the right one of four answers, and the right one of four reasons for it.

Zellers et al., From Recognition to Cognition, CVPR 2019, arXiv 1811.10830. One model scores texts beside the picture: question
and answer for Q->A; question, right answer and reason for QA->R, as the benchmark has it, whatever was answered. Q->AR is the
share of examples in which both are right. Chance: 1/4, 1/4 and, for both, 1/16, or one over the choices that there are.

Who `person 3` is, the pictures show: the reader draws the boxes of what the words name (`data/annotated/vcr_regions.py`).
"""

from __future__ import annotations

import csv
import io
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
        answers: (N, C) probabilities of each answer.
        reasons: (N, C, R) probabilities of each reason, given each answer; empty for answers that it was not asked for. Given the
            right one alone where that is known, and all of them, as the benchmark's server wants it, where it is withheld.
    """

    keys: tuple[str, ...]
    answers: tuple[tuple[float, ...], ...]
    reasons: tuple[tuple[tuple[float, ...], ...], ...]


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
        """An answer to choose, or a reason: in one epoch half of the examples ask for either, in the next for the other."""

        def texts(example: Chosen, epoch: int) -> tuple[Sequence[str], int]:
            if example.reasons and example.reason >= 0 and (stable_id(example.key) + epoch) % 2:
                return _reasons(example, example.label), example.reason
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
        answers, reasons = [()] * len(rows), [()] * len(rows)  # type: list[Any], list[Any]
        texts = [[*_answers(row), *(text for label in _given(row) for text in _reasons(row, label))] for row in rows]
        for numbers, (pictures,), said in encoded(model, examples, texts):
            scores, start = model.choose(pictures, said).numpy(), 0
            for number in numbers:
                row, stop = rows[number], start + len(texts[number])
                first, *others = np.split(
                    scores[start:stop],
                    [len(row.choices) + place * len(row.reasons) for place in range(len(_given(row)))],
                )
                given = dict(zip(_given(row), map(_softmax, others), strict=True))
                answers[number] = _softmax(first)
                reasons[number] = tuple(given.get(label, ()) for label in range(len(row.choices)))
                start = stop
        details = Choices(tuple(row.key for row in rows), tuple(answers), tuple(reasons))
        return collect(self, examples, self.metrics(rows, details), details)

    def metrics(self, rows: Sequence[Chosen], found: Choices) -> Iterator[Metric]:
        """The three accuracies, each over all and by kind of question."""
        known = [
            (row, answers, reasons)
            for row, answers, reasons in zip(rows, found.answers, found.reasons, strict=True)
            if row.label >= 0
        ]
        if not known:
            return
        answered = [float(np.argmax(answers) == row.label) for row, answers, _ in known]
        own = [row for row, _, _ in known]
        yield from self._one("Q->A", own, answered, [1 / len(row.choices) for row in own])
        both = [
            (row, each[row.label], hit) for (row, _, each), hit in zip(known, answered, strict=True) if row.reason >= 0
        ]
        if both:
            own = [row for row, _, _ in both]
            reasoned = [float(np.argmax(each) == row.reason) for row, each, _ in both]
            odds = [1 / len(row.reasons) for row in own]
            yield from self._one("QA->R", own, reasoned, odds)
            joint = [hit * other for (_, _, hit), other in zip(both, reasoned, strict=True)]
            yield from self._one("Q->AR", own, joint, [a / len(row.choices) for a, row in zip(odds, own, strict=True)])

    def _one(self, name: str, rows: Sequence[Chosen], hits: Sequence[float], odds: Sequence[float]) -> Iterator[Metric]:
        groups = [row.group for row in rows]
        chances = {
            group: float(np.mean([o for o, g in zip(odds, groups, strict=True) if g == group])) for group in set(groups)
        }
        units = [row.pictures[0] for row in rows]
        yield from accuracies(name, hits, units, groups, float(np.mean(odds)), chances, self.resamples, self.seed)

    def submission(self, result: Result) -> str:
        """CSV by the columns of VCR's server: `annot_id`, `answer_0`, ..., `rationale_conditioned_on_a0_0`, ....

        It wants the reasons given each answer, which are there where the right one is withheld. Elsewhere those that were not
        asked for stay empty.
        """
        found: Choices = result.details
        answers = max((len(each) for each in found.answers), default=0)
        reasons = max((len(each) for some in found.reasons for each in some), default=0)
        columns = [f"answer_{place}" for place in range(answers)]
        given = [f"rationale_conditioned_on_a{label}_{place}" for label in range(answers) for place in range(reasons)]
        out = io.StringIO()
        writer = csv.DictWriter(out, ["annot_id", *columns, *given], lineterminator="\n")
        writer.writeheader()
        for key, own, others in zip(found.keys, found.answers, found.reasons, strict=True):
            row: dict[str, Any] = {"annot_id": key} | {f"answer_{place}": share for place, share in enumerate(own)}
            for label, each in enumerate(others):
                row |= {f"rationale_conditioned_on_a{label}_{place}": share for place, share in enumerate(each)}
            writer.writerow(row)
        return out.getvalue()


def _given(example: Chosen) -> Sequence[int]:
    """Answers that reasons are asked for: the right one, or where it is withheld all of them."""
    if not example.reasons:
        return ()
    return (example.label,) if example.label >= 0 else range(len(example.choices))


def _answers(example: Chosen) -> list[str]:
    return [f"{example.text} {choice}" for choice in example.choices]


def _reasons(example: Chosen, label: int) -> list[str]:
    return [f"{example.text} {example.choices[label]} {reason}" for reason in example.reasons]


def _softmax(scores: np.ndarray) -> tuple[float, ...]:
    shares = np.exp(scores.astype(np.float64) - scores.max())
    return tuple(float(share) for share in shares / shares.sum())
