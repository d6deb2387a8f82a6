"""Sentences judged by pictures: visual entailment (SNLI-VE), statements about two pictures (NLVR2).

Xie et al., Visual Entailment, 2019, arXiv 1901.06706: does the picture prove the sentence, refute it, or leave it open? Suhr et
al., A Corpus for Reasoning about Natural Language Grounded in Photographs, ACL 2019, arXiv 1811.00491: is the sentence true of
the two pictures? There, `consistency` is the share of sentences that are judged rightly with every pair of pictures they come
with: a model that reads the sentence alone is never consistent where both verdicts occur.

Chance is the most frequent verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from multiway.abilities import require
from multiway.data.example_loader import Wanted
from multiway.data.examples import Examples, Judged, Kind
from multiway.data.source import DataError
from multiway.tasks import statistics
from multiway.tasks.example_task import accuracies, encoded, require_examples
from multiway.tasks.task import Metric, Result, collect

__all__ = ["Judging", "Verdicts"]


@dataclass(frozen=True)
class Verdicts:
    """What was judged: details of the result.

    Attributes:
        keys, given: of each sentence, its verdict by name, in the order of the examples.
        right: whether it is; None where it is withheld.
    """

    keys: tuple[str, ...]
    given: tuple[str, ...]
    right: tuple[bool | None, ...]


@dataclass(frozen=True)
class Judging:
    """Sentences about `pictures` pictures.

    Attributes:
        name: `entailment` or `nlvr2`.
        pictures: one or two.
    """

    name: str = "entailment"
    pictures: int = 1
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "judge")
    kind: ClassVar[Kind] = "judged"
    best: ClassVar[str] = "accuracy"

    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def answers(self, examples: Examples[Judged]) -> tuple[str, ...]:
        """Names of the verdicts."""
        return examples.labels

    def wanted(self, answers: Sequence[str]) -> Wanted:
        """The label."""
        return Wanted()

    def run(self, model: Any, examples: Examples[Judged]) -> Result:
        """Judge every sentence.

        Raises:
            LacksAbility: if the model was not tuned to judge.
            DataError: for examples of another kind, or with other verdicts.
        """
        require(model, self.needs, self.name)
        require_examples(self.name, examples, self.kind, self.pictures)
        names = tuple(model.verdicts)
        if not set(examples.labels) <= set(names):
            raise DataError(
                f"{examples.name}@{examples.split} has the verdicts {', '.join(examples.labels)}; this model was tuned to say "
                f"{', '.join(names)}: name data of the benchmark that it was tuned for"
            )
        rows = [examples.example(number) for number in range(len(examples))]
        given = [-1] * len(rows)
        for numbers, pictures, texts in encoded(model, examples, [[row.text] for row in rows]):
            for number, best in zip(numbers, model.judge(pictures, texts).argmax(1).tolist(), strict=True):
                given[number] = best
        truth = [examples.labels[row.label] if row.label >= 0 else None for row in rows]
        right = [None if true is None else names[best] == true for best, true in zip(given, truth, strict=True)]
        details = Verdicts(tuple(row.key for row in rows), tuple(names[best] for best in given), tuple(right))
        return collect(self, examples, self.metrics(rows, right), details)

    def metrics(self, rows: Sequence[Judged], right: Sequence[bool | None]) -> Iterator[Metric]:
        """Accuracy, over all and by group, and consistency where sentences come several times."""
        known = [(row, bool(hit)) for row, hit in zip(rows, right, strict=True) if hit is not None]
        if not known:
            return
        shares = np.bincount([row.label for row, _ in known]) / len(known)
        units = [row.pictures[0] for row, _ in known]
        yield from accuracies(
            "accuracy", [hit for _, hit in known], units, [row.group for row, _ in known], float(shares.max()),
            resamples=self.resamples, seed=self.seed,
        )  # fmt: skip
        twins: dict[str, list[tuple[Judged, bool]]] = {}
        for row, hit in known:
            if row.twin:
                twins.setdefault(row.twin, []).append((row, hit))
        if twins:
            verdicts = [{row.label for row, _ in some} for some in twins.values()]
            # Who always says the same is consistent where that alone is right.
            chance = max(float(np.mean([each == {label} for each in verdicts])) for label in range(len(shares)))
            yield from accuracies(
                "consistency", [all(hit for _, hit in some) for some in twins.values()],
                [some[0][0].pictures[0] for some in twins.values()], [""] * len(twins), chance,
                resamples=self.resamples, seed=self.seed,
            )  # fmt: skip

    def submission(self, result: Result) -> str | list[dict[str, Any]]:
        """Of NLVR2 the lines `identifier,prediction` that its evaluation script reads; of others the same as values."""
        found: Verdicts = result.details
        pairs = list(zip(found.keys, found.given, strict=True))
        if self.name == "nlvr2":
            return "".join(f"{key},{given}\n" for key, given in pairs)
        return [{"key": key, "prediction": given} for key, given in pairs]
