"""Visual question answering: an answer from a list, scored against those of ten people.

Goyal et al., Making the V in VQA Matter, CVPR 2017, arXiv 1612.00837. The metric is the benchmark's own
(`tasks/vqa_accuracy.py`): min(1, how many of nine people gave the answer / 3), averaged over the ten subsets of nine. Of a list
of answers a classifier's best possible score is told as well: what the list cannot answer is no fault of the model.

Chance is the best constant: the one answer of the list that scores highest over all questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from multiway.abilities import require
from multiway.data.example_loader import Wanted
from multiway.data.examples import Asked, Examples, Kind
from multiway.tasks import statistics
from multiway.tasks.example_task import accuracies, encoded, require_examples
from multiway.tasks.task import Metric, Result, collect
from multiway.tasks.vqa_accuracy import answer_list, normalise, soft_targets, vqa_accuracy

__all__ = ["Answered", "Vqa"]


@dataclass(frozen=True)
class Answered:
    """What was answered: details of the result.

    Attributes:
        keys, given: of each question, in the order of the examples.
        scores: of each, in [0, 1]; nan where the answers are withheld.
    """

    keys: tuple[str, ...]
    given: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Vqa:
    """Questions with free answers, answered from a list.

    Attributes:
        size: of the list at most; the field's is 3,129.
        least: how often an answer is given in the training data to be on it; the field's is 9.
        official: score by ten people (VQA); otherwise by being the one answer (GQA).
    """

    name: str = "vqa"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "answer")
    kind: ClassVar[Kind] = "asked"
    pictures: ClassVar[int] = 1
    best: ClassVar[str] = "accuracy"

    size: int = 3129
    least: int = 9
    official: bool = True
    scanned: int = 20_000
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def answers(self, examples: Examples[Asked]) -> tuple[str, ...]:
        """The most frequent answers; of an endless world, of its first questions."""
        given = [examples.example(number).answers for number in range(min(len(examples), self.scanned))]
        return answer_list(given, self.size, self.least)

    def wanted(self, answers: Sequence[str]) -> Wanted:
        """How right each answer of the list is."""
        place = {answer: number for number, answer in enumerate(answers)}

        def targets(given: Sequence[str]) -> Tensor:
            row = torch.zeros(len(answers))
            for number, share in soft_targets(given, place).items():
                row[number] = share
            return row

        return Wanted(targets=targets)

    def run(self, model: Any, examples: Examples[Asked]) -> Result:
        """Answer every question.

        Raises:
            LacksAbility: if the model was not tuned to answer.
            DataError: for examples of another kind.
        """
        require(model, self.needs, self.name)
        require_examples(self.name, examples, self.kind, self.pictures)
        rows = [examples.example(number) for number in range(len(examples))]
        given = [""] * len(rows)
        for numbers, (pictures,), texts in encoded(model, examples, [[row.text] for row in rows]):
            for number, best in zip(numbers, model.answer(pictures, texts).argmax(1).tolist(), strict=True):
                given[number] = model.answers[best]
        scores = [
            self._score(each, row.answers) if row.answers else np.nan for each, row in zip(given, rows, strict=True)
        ]
        details = Answered(tuple(row.key for row in rows), tuple(given), tuple(scores))
        return collect(self, examples, self.metrics(rows, scores, model.answers), details)

    def metrics(self, rows: Sequence[Asked], scores: Sequence[float], answers: Sequence[str]) -> Iterator[Metric]:
        """Accuracy, over all and by group, and the best that the list allows; nothing where all answers are withheld."""
        scored = [number for number, score in enumerate(scores) if not np.isnan(score)]
        if not scored:
            return
        # The score of each answer of the list for each question is needed for the constant's and the list's best.
        table = np.array([self._table(rows[number].answers, answers) for number in scored])
        groups = [rows[number].group for number in scored]
        chances = {group: float(table[[each == group for each in groups]].mean(0).max()) for group in set(groups)}
        units = [rows[number].pictures[0] for number in scored]
        yield from accuracies(
            "accuracy",
            [scores[number] for number in scored],
            units,
            groups,
            float(table.mean(0).max()),
            chances,
            self.resamples,
            self.seed,
        )
        yield from accuracies("best_of_list", list(table.max(1)), units, [""] * len(scored), None, None, self.resamples)

    def submission(self, result: Result) -> list[dict[str, Any]]:
        """As the server of VQA takes it: `[{"question_id", "answer"}]`."""
        found: Answered = result.details
        return [
            {"question_id": int(key) if key.isdecimal() else key, "answer": answer}
            for key, answer in zip(found.keys, found.given, strict=True)
        ]

    def _score(self, given: str, answers: Sequence[str]) -> float:
        if self.official:
            return vqa_accuracy(given, answers)
        return float(normalise(given) == normalise(answers[0]))

    def _table(self, given: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """(A,) the score of each answer of the list to one question: 0 but for those that somebody gave."""
        said = {normalise(each) for each in given}
        return np.array([self._score(each, given) if normalise(each) in said else 0.0 for each in answers])
