"""Visual question answering in the model's own words: the answer is written, not chosen from a list.

For models whose decoder writes answers (`methods/answer_writer.py`). An answer counts as VQA counts it (`tasks/vqa_accuracy.py`), or,
for GQA, if it is the one that was given. The same model ranks a list in task `vqa`.

Chance is the best constant: the one answer that scores highest over all questions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from multiway.abilities import Encoded, require
from multiway.data.example_loader import Wanted
from multiway.data.examples import Asked, Examples, Kind
from multiway.data.source import DataError
from multiway.nn.generate import Generation, Texts
from multiway.tasks import statistics
from multiway.tasks.example_task import accuracies, encoded, require_examples
from multiway.tasks.task import Metric, Result, collect
from multiway.tasks.vqa_accuracy import answer_list, answer_weights, exact_match, normalise, vqa_accuracy

__all__ = ["GeneratedAnswers", "WritesAnswers", "WrittenAnswers"]


@runtime_checkable
class WritesAnswers(Protocol):
    """Answers questions about pictures in words of its own."""

    def write_answers(
        self, image: Encoded, text: Encoded, settings: Generation, generator: torch.Generator | None = None
    ) -> Texts:
        """An answer to question i about picture i, tokens kept."""


@dataclass(frozen=True)
class WrittenAnswers:
    """What was answered: details of the result.

    Attributes:
        keys, given: of each question, in the order of the examples.
        scores: of each, in [0, 1]; nan where the answers are withheld.
    """

    keys: tuple[str, ...]
    given: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class GeneratedAnswers:
    """Questions with free answers, answered in the model's own words.

    Attributes:
        strategy, beams, max_length, min_length, length_penalty, repetition_penalty, top_p, temperature: as in
            `nn.generate.Generation`; three beams are BLIP's. Lengths count start and end token.
        official: score by ten people (VQA); otherwise by being the one answer (GQA).
        size, least: of the list that a decoder is tuned on: how many answers at most, and how often each is given.
        scanned: training questions that are looked at for the list.
        resamples, seed: of the bootstrap over pictures; `seed` also draws answers with `nucleus`.

    Raises:
        ValueError: for settings of generation that do not fit together.
    """

    name: str = "vqa-generate"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "write_answers")
    kind: ClassVar[Kind] = "asked"
    pictures: ClassVar[int] = 1
    best: ClassVar[str] = "accuracy"

    strategy: Literal["greedy", "beam", "nucleus"] = "beam"
    beams: int = 3
    max_length: int = 20
    min_length: int = 0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    top_p: float = 0.9
    temperature: float = 1.0
    official: bool = True
    size: int = 3129
    least: int = 9
    scanned: int = 20_000
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        self.generation  # noqa: B018 - refuses settings that do not fit together

    @property
    def generation(self) -> Generation:
        """How answers are written.

        Raises:
            ValueError: for settings that do not fit together.
        """
        return Generation.of(self)

    def answers(self, examples: Examples[Asked]) -> tuple[str, ...]:
        """The most frequent answers, every person's counted: what a decoder is tuned on.

        Raises:
            DataError: if none is given so often.
        """
        given = [examples.example(number).answers for number in range(min(len(examples), self.scanned))]
        try:
            return answer_list(given, self.size, self.least, counted="all")
        except ValueError as error:
            raise DataError(f"{examples.name}@{examples.split}: {error}") from error

    def wanted(self, answers: Sequence[str]) -> Wanted:
        """How much is learnt from each answer of the list: the share of people who gave it."""
        place = {answer: number for number, answer in enumerate(answers)}

        def targets(given: Sequence[str]) -> Tensor:
            row = torch.zeros(len(answers))
            for answer, share in answer_weights(given).items():
                if answer in place:
                    row[place[answer]] = share
            return row

        return Wanted(targets=targets)

    def run(self, model: Any, examples: Examples[Asked]) -> Result:
        """Write an answer to every question.

        Raises:
            LacksAbility: if the model writes no answers.
            DataError: for examples of another kind.
        """
        require(model, self.needs, self.name, (f"answer-writer (multiway finetune RUN --task {self.name})",))
        require_examples(self.name, examples, self.kind, self.pictures)
        settings, generator = self.generation, torch.Generator().manual_seed(self.seed)
        rows = [examples.example(number) for number in range(len(examples))]
        given = [""] * len(rows)
        for numbers, (pictures,), texts in encoded(model, examples, [[row.text] for row in rows]):
            answers = model.write_answers(pictures, texts, settings, generator)
            for number, answer in zip(numbers, answers, strict=True):
                given[number] = answer
        scores = [
            self._score(answer, row.answers) if row.answers else np.nan for answer, row in zip(given, rows, strict=True)
        ]
        details = WrittenAnswers(tuple(row.key for row in rows), tuple(given), tuple(scores))
        return collect(self, examples, self.metrics(rows, scores), details)

    def metrics(self, rows: Sequence[Asked], scores: Sequence[float]) -> Iterator[Metric]:
        """Accuracy, over all and by group; nothing where all answers are withheld."""
        known = [number for number, score in enumerate(scores) if not np.isnan(score)]
        if not known:
            return
        groups = [rows[number].group for number in known]
        chances = {
            group: self._constant([rows[number] for number in known if rows[number].group == group])
            for group in set(groups)
        }
        yield from accuracies(
            "accuracy",
            [scores[number] for number in known],
            [rows[number].pictures[0] for number in known],
            groups,
            self._constant([rows[number] for number in known]),
            chances,
            self.resamples,
            self.seed,
        )

    def submission(self, result: Result) -> list[dict[str, Any]]:
        """As the server of VQA takes it: `[{"question_id", "answer"}]`; GQA's: `[{"questionId", "prediction"}]`."""
        found: WrittenAnswers = result.details
        key, answer = ("question_id", "answer") if self.official else ("questionId", "prediction")
        return [
            {key: int(own) if self.official and own.isdecimal() else own, answer: given}
            for own, given in zip(found.keys, found.given, strict=True)
        ]

    def _score(self, given: str, answers: Sequence[str]) -> float:
        """One question's score; a question of VQA that has one answer alone is right with it."""
        if self.official and len(answers) > 1:
            return vqa_accuracy(given, answers)
        return exact_match(given, answers[0])

    def _constant(self, rows: Sequence[Asked]) -> float:
        """What the best single answer scores."""
        total: dict[str, float] = defaultdict(float)
        for row in rows:
            # Each as people wrote it, since the challenge does not always normalise; two spellings count as the better one.
            best: dict[str, float] = {}
            for answer in set(row.answers):
                plain = normalise(answer) if self.official else answer.strip().lower()
                best[plain] = max(best.get(plain, 0.0), self._score(answer, row.answers))
            for plain, score in best.items():
                total[plain] += score
        return max(total.values()) / len(rows)
