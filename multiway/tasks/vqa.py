"""Visual question answering: an answer from a list, scored against those of ten people.

Goyal et al., Making the V in VQA Matter, CVPR 2017, arXiv 1612.00837. The metric is the benchmark's own
(`tasks/vqa_accuracy.py`): min(1, how many of nine people gave the answer / 3), averaged over the ten subsets of nine. GQA (Hudson
and Manning, 2019, arXiv 1902.09506) has one answer, and a model is right or wrong.

What the list of answers lacks is no fault of the model: `best_of_list` is the score of whoever always takes the best answer of
the list. Chance is the best constant: the one answer of the list that scores highest over all questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from multiway.abilities import require
from multiway.data.example_loader import Wanted
from multiway.data.examples import Asked, Examples, Kind, KnowsAnswered
from multiway.data.source import DataError
from multiway.tasks import statistics
from multiway.tasks.answer_scores import AnswerScores, most_given, normal
from multiway.tasks.example_task import accuracies, encoded, require_examples
from multiway.tasks.task import Metric, Result, collect
from multiway.tasks.vqa_accuracy import soft_targets

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
        official: score by ten people (VQA); otherwise by the one answer (GQA).
        size: of the list at most; the field's for VQA is 3,129.
        least: how often an answer is given in the training data to be on it; the field's for VQA is 9. Where that leaves fewer
            than two, all are listed.
        scanned: questions of an endless world that are looked at for the list; of files it is all.
    """

    name: str = "vqa"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "answer")
    kind: ClassVar[Kind] = "asked"
    pictures: ClassVar[int] = 1
    best: ClassVar[str] = "accuracy"

    official: bool = True
    size: int = 3129
    least: int = 9
    scanned: int = 5_000
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def answers(self, examples: Examples[Asked]) -> tuple[str, ...]:
        """The most frequent answers, each question counted once by the answer that most people gave; equals by the alphabet.

        Raises:
            DataError: if there are not two.
        """
        endless = isinstance(examples, KnowsAnswered) and examples.answered
        questions = range(min(len(examples), self.scanned) if endless else len(examples))
        given = (examples.example(number).answers for number in questions)
        counts = Counter(most_given(each, self.official) for each in given if each)
        counts.pop("", None)  # an article or a mark alone: nothing to choose
        if len(counts) < 2:
            raise DataError(
                f"{examples.name}@{examples.split} has {len(counts)} different answers; expected at least two to choose from"
            )
        often = sorted(counts, key=lambda answer: (-counts[answer], answer))
        kept = [answer for answer in often if counts[answer] >= self.least]
        return tuple((kept if len(kept) > 1 else often)[: self.size])

    def wanted(self, answers: Sequence[str]) -> Wanted:
        """How right each answer of the list is: 0.3 for each of ten people who gave it, at most 1; 1 for the one answer."""
        place = {normal(answer): number for number, answer in reversed(list(enumerate(answers)))}
        scores = AnswerScores(answers, self.official)

        def targets(given: Sequence[str]) -> Tensor:
            row = torch.zeros(len(answers))
            for number, share in (soft_targets(given, place) if self.official else scores(given)).items():
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
        given = [0] * len(rows)
        for numbers, (pictures,), texts in encoded(model, examples, [[row.text] for row in rows]):
            for number, best in zip(numbers, model.answer(pictures, texts).argmax(1).tolist(), strict=True):
                given[number] = best
        answers = tuple(model.answers)
        right = AnswerScores(answers, self.official)
        table = [right(row.answers) if row.answers else None for row in rows]
        scores = [np.nan if own is None else own.get(best, 0.0) for best, own in zip(given, table, strict=True)]
        details = Answered(tuple(row.key for row in rows), tuple(answers[best] for best in given), tuple(scores))
        return collect(self, examples, self.metrics(rows, scores, table, len(answers)), details)

    def metrics(
        self, rows: Sequence[Asked], scores: Sequence[float], table: Sequence[dict[int, float] | None], answers: int
    ) -> Iterator[Metric]:
        """Accuracy, over all and by group, and the best that the list allows; nothing where all answers are withheld.

        Args:
            rows: questions.
            scores: of what was answered.
            table: of each question, the scores of the answers of the list that have any; None where they are withheld.
            answers: on the list.
        """
        known = [(row, score, own) for row, score, own in zip(rows, scores, table, strict=True) if own is not None]
        if not known:
            return
        groups = [row.group for row, _, _ in known]
        sums = {group: np.zeros(answers) for group in {*groups, ""}}
        for row, _, own in known:
            for group in {row.group, ""}:
                for number, score in own.items():
                    sums[group][number] += score
        chances = {group: float(sums[group].max()) / count for group, count in Counter(groups).items() if group}
        units = [row.pictures[0] for row, _, _ in known]
        yield from accuracies(
            "accuracy",
            [score for _, score, _ in known],
            units,
            groups,
            float(sums[""].max()) / len(known),
            chances,
            self.resamples,
            self.seed,
        )
        best = [max(own.values(), default=0.0) for _, _, own in known]
        yield from accuracies("best_of_list", best, units, [""] * len(best), None, None, self.resamples, self.seed)

    def submission(self, result: Result) -> list[dict[str, Any]]:
        """As the servers take it: `[{"question_id": 1, "answer": "no"}]` of VQA, `[{"questionId": "1", "prediction": "no"}]` of
        GQA."""
        found: Answered = result.details
        pairs = list(zip(found.keys, found.given, strict=True))
        if self.official:
            return [{"question_id": int(key) if key.isdecimal() else key, "answer": given} for key, given in pairs]
        return [{"questionId": key, "prediction": given} for key, given in pairs]
