"""Pairs of captions that differ in one fact, without tuning: does the model tell which one is true of the picture?

Winoground (Thrush et al., 2022, arXiv 2204.03162) has two captions and two pictures. With s(C, I) the model's score, equations 1
to 3 are, for each such quadruple,

    text    s(C0, I0) > s(C1, I0)  and  s(C1, I1) > s(C0, I1)      the caption for each picture
    image   s(C0, I0) > s(C0, I1)  and  s(C1, I1) > s(C1, I0)      the picture for each caption
    group   both

By chance 1/4, 1/4 and 1/6: of the 24 orders of four scores, 4 have both true pairs above both false ones.

ARO (Yuksekgonul et al., 2023, arXiv 2210.01936) and SugarCrepe (Hsieh et al., 2023, arXiv 2306.14610) have one picture and two
captions: `accuracy`, by chance 1/2, and its mean over groups, each counting once, which is what ARO reports.

Equal scores are wrong, here as in the benchmarks' code: a model that finds all captions alike scores 0, not chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from multiway.abilities import Encoded, Query, abilities_of, require
from multiway.data.annotated.pairs import QUESTION
from multiway.data.example_loader import Wanted
from multiway.data.examples import Chosen, Examples, Judged
from multiway.data.source import DataError
from multiway.tasks import statistics
from multiway.tasks.example_task import accuracies, encoded, require_examples
from multiway.tasks.task import Metric, Result, collect

__all__ = ["CaptionPairs", "PairScores", "pair_scores"]

_BLOCK = 32  # pairs whose every picture is compared with every text at once; only the diagonal is wanted
_QUAD = {(0, 0): 1, (0, 1): 0, (1, 0): 0, (1, 1): 1}  # (picture, caption) -> whether they are a pair


@dataclass(frozen=True)
class PairScores:
    """How the model scored each picture with each caption: details of the result.

    Attributes:
        keys: of the quadruples (Winoground) or of the examples.
        scores: Winoground: (Q, 2, 2), picture by caption, pairs on the diagonal, as pictures choose captions. Else (N, C), in the
            order of the choices, -inf where there are fewer.
        back: Winoground: the same, as captions choose pictures; another only where similarity is not symmetric. Else None.
        by: `match` or `compare`.
    """

    keys: tuple[str, ...]
    scores: np.ndarray
    back: np.ndarray | None
    by: str


@dataclass(frozen=True)
class CaptionPairs:
    """Captions that differ in one fact, told apart without tuning.

    Attributes:
        name: `winoground` for two captions and two pictures, `pairs` for captions of one picture.
        kind: of examples: `judged` quadruples, or `chosen` captions.
        by: `match` (fused), `compare` (each side by itself), or `auto`: matched where the model can, else compared.
        least: examples that a group needs to be reported by itself and to count in `macro_accuracy`; 25 is ARO's.
    """

    name: str = "winoground"
    kind: Literal["judged", "chosen"] = "judged"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text")
    pictures: ClassVar[int] = 1

    by: Literal["auto", "match", "compare"] = "auto"
    least: int = 25
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    @property
    def best(self) -> str:
        """The metric that sums it up."""
        return "group" if self.kind == "judged" else "accuracy"

    def answers(self, examples: Examples[Any]) -> tuple[str, ...]:
        """Nothing is listed: nothing is tuned."""
        return ()

    def wanted(self, answers: Sequence[str]) -> Wanted:
        """Nothing: models are asked as they are.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"task `{self.name}` asks models as they are and teaches nothing; tune for `entailment`, `nlvr2` or another task, "
            "then measure this one"
        )

    def run(self, model: Any, examples: Examples[Any]) -> Result:
        """Score every picture with its captions.

        Raises:
            LacksAbility: if the model neither matches nor compares.
            DataError: for examples of another kind, or quadruples that are none.
        """
        by = self._way(model)
        require(model, (*self.needs, by), self.name)
        require_examples(self.name, examples, self.kind, self.pictures)
        if self.kind == "judged":
            return self._quadruples(model, examples, by)
        return self._choices(model, examples, by)

    def submission(self, result: Result) -> list[dict[str, Any]]:
        """Keys and scores; these benchmarks have no server."""
        found: PairScores = result.details
        return [
            {"key": key, "scores": [_plain(each) for each in scores]}
            for key, scores in zip(found.keys, found.scores, strict=True)
        ]

    def _way(self, model: Any) -> str:
        if self.by != "auto":
            return self.by
        return "match" if "match" in abilities_of(model) else "compare"

    def _quadruples(self, model: Any, examples: Examples[Judged], by: str) -> Result:
        rows = [examples.example(number) for number in range(len(examples))]
        keys, places = _arranged(rows, f"{examples.name}@{examples.split}")
        tables: list[np.ndarray] = []
        queries: tuple[Query, Query] = ("image", "text")
        for query in queries:
            if query == "text" and by == "match":
                tables.append(tables[0])
                continue
            scores = np.empty(len(rows))
            for numbers, (pictures,), texts in encoded(model, examples, [[row.text] for row in rows]):
                scores[numbers] = pair_scores(model, pictures, texts, by, query)
            tables.append(scores[places].reshape(-1, 2, 2))
        first = [rows[int(place)] for place in places[:, 0]]
        details = PairScores(keys, tables[0], tables[1], by)
        return collect(self, examples, self.scores(tables[0], tables[1], [row.group for row in first]), details)

    def scores(self, scores: np.ndarray, back: np.ndarray, groups: Sequence[str]) -> Iterator[Metric]:
        """Text, image and group score, of all quadruples and of each group; see `PairScores`."""
        own, own_back = (np.diagonal(each, axis1=1, axis2=2) for each in (scores, back))
        text = np.all(own > scores[:, [0, 1], [1, 0]], axis=1)
        image = np.all(own_back > back[:, [1, 0], [0, 1]], axis=1)
        for name, right, chance in (("text", text, 1 / 4), ("image", image, 1 / 4), ("group", text & image, 1 / 6)):
            yield from accuracies(
                name, list(right.astype(float)), list(range(len(right))), groups, chance, dict.fromkeys(groups, chance),
                self.resamples, self.seed,
            )  # fmt: skip

    def _choices(self, model: Any, examples: Examples[Chosen], by: str) -> Result:
        rows = [examples.example(number) for number in range(len(examples))]
        said = [_texts(row) for row in rows]
        table = np.full((len(rows), max(map(len, said))), -np.inf)
        for numbers, (pictures,), texts in encoded(model, examples, said):
            found = pair_scores(model, pictures, texts, by, "image")
            start = 0
            for number in numbers:
                count = len(said[number])
                table[number, :count] = found[start : start + count]
                start += count
        details = PairScores(tuple(row.key for row in rows), table, None, by)
        return collect(self, examples, self.metrics(rows, table), details)

    def metrics(self, rows: Sequence[Chosen], table: np.ndarray) -> Iterator[Metric]:
        """Accuracy over all examples whose answer is known, over each group, and the mean over groups."""
        known = [number for number, row in enumerate(rows) if row.label >= 0]
        if not known:
            return
        right = []
        for number in known:
            others = np.delete(table[number], rows[number].label)
            right.append(float(table[number, rows[number].label] > others.max()))
        odds = np.array([1 / len(rows[number].choices) for number in known])
        names, place, counts = np.unique(
            [rows[number].group for number in known], return_inverse=True, return_counts=True
        )
        large = [bool(name) and count >= self.least for name, count in zip(names, counts, strict=True)]
        groups = [str(names[each]) if large[each] else "" for each in place]
        units = [rows[number].pictures[0] for number in known]
        chances = {str(name): float(odds[place == each].mean()) for each, name in enumerate(names)}
        yield from accuracies(
            "accuracy", right, units, groups, float(odds.mean()), chances, self.resamples, self.seed
        )  # fmt: skip
        some = np.array(large)[place]
        if sum(large) > 1:
            interval = statistics.balanced_mean(
                np.array(right)[some], place[some], resamples=self.resamples, seed=self.seed
            )
            chance = float(np.mean([chances[str(name)] for name, kept in zip(names, large, strict=True) if kept]))
            yield Metric("macro_accuracy", *interval, n=int(some.sum()), chance=chance)


def pair_scores(model: Any, pictures: Encoded, texts: Encoded, by: str, query: Query = "image") -> np.ndarray:
    """(n,) how well text i fits picture i.

    Args:
        pictures, texts: n rows each, tokens kept.
        by: `match` or `compare`.
        query: who asks, where comparing is not symmetric.

    Raises:
        ValueError: if a score is not a finite number: each comparison with it would be false in silence.
    """
    if by == "match":
        found: Tensor = model.match(pictures, texts)
    elif pictures.has_embedding:
        found = (pictures.embedding.float() * texts.embedding.float()).sum(1)
    else:
        blocks = torch.arange(len(texts.embedding)).split(_BLOCK)
        found = torch.cat([model.compare(pictures.rows(each), texts.rows(each), query).diagonal() for each in blocks])
    scores: np.ndarray = found.double().numpy()
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise ValueError(
            f"`{by}` gave nan or inf for {bad} of {len(scores)} pairs; the weights have probably diverged: load an earlier checkpoint"
        )
    return scores


def _plain(scores: Any) -> Any:
    """Numbers and lists of them as JSON has them; None where there is no choice."""
    return scores.tolist() if np.isfinite(scores).all() else None


def _texts(row: Chosen) -> tuple[str, ...]:
    """The choices alone, or each after the question where there is one."""
    return row.choices if row.text == QUESTION else tuple(f"{row.text} {choice}" for choice in row.choices)


def _arranged(rows: Sequence[Judged], name: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Twins as quadruples: their keys (Q,), and (Q, 4) numbers of the rows (I0, C0), (I0, C1), (I1, C0), (I1, C1).

    Raises:
        DataError: if twins are not two captions with two pictures, each a pair with one.
    """
    twins: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        twins.setdefault(row.twin, []).append(number)
    places = []
    for twin, numbers in twins.items():
        captions = dict.fromkeys(rows[number].text for number in numbers if rows[number].label == 1)
        shown = dict.fromkeys(rows[number].pictures[0] for number in numbers if rows[number].label == 1)
        at = {
            (list(shown).index(row.pictures[0]), list(captions).index(row.text)): number
            for number, row in ((number, rows[number]) for number in numbers)
            if row.pictures[0] in shown and row.text in captions
        }
        if not twin or len(numbers) != 4 or {place: rows[number].label for place, number in at.items()} != _QUAD:
            raise DataError(
                f"{name}: the {len(numbers)} examples of twin {twin!r} ({rows[numbers[0]].where or rows[numbers[0]].key}) are not two "
                "captions with each of two pictures, of which each has one that is true of it; name Winoground's examples or "
                "a test split of scenes"
            )
        places.append([at[place] for place in _QUAD])
    return tuple(twins), np.array(places)
