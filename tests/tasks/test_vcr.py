"""VCR: the three accuracies against counting, what is asked, chance, and the server's columns."""

import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tuned_model import TunedModel, numbered

from multiway.data.examples import Chosen
from multiway.tasks.vcr import Vcr

VCR = Vcr(resamples=30)


def questions(count: int = 24) -> Any:
    rows = []
    for n in range(count):
        answers = tuple(f"a{n}.{k}" for k in range(4 if n % 3 else 2))
        reasons = tuple(f"r{n}.{k}" for k in range(4)) if n % 4 else ()
        group = "why" if n % 2 else "what"
        rows.append(
            Chosen(
                f"val-{n}", (n // 2,), f"q{n}", "", group, answers, n % len(answers), reasons, n % 4 if reasons else -1
            )
        )
    return numbered("chosen", rows)


def scores(picture: int, text: str) -> float:
    """A number for each text, as good as drawn."""
    return float(np.random.default_rng([picture, *map(ord, text)]).random())


def test_accuracies_equal_counting() -> None:
    examples = questions()
    result = VCR.run(TunedModel(scores), examples)
    answered, reasoned, odds = {}, {}, {}
    for row in examples.examples:
        given = [scores(row.pictures[0], f"{row.text} {each}") for each in row.choices]
        answered[row.key] = float(np.argmax(given) == row.label)
        odds[row.key] = 1 / len(row.choices)
        if row.reasons:
            right = f"{row.text} {row.choices[row.label]}"
            reasoned[row.key] = float(
                np.argmax([scores(row.pictures[0], f"{right} {r}") for r in row.reasons]) == row.reason
            )
    both = {key: hit * answered[key] for key, hit in reasoned.items()}
    for name, hits, chance in (
        ("Q->A", answered, odds),
        ("QA->R", reasoned, dict.fromkeys(reasoned, 0.25)),
        ("Q->AR", both, {key: odds[key] / 4 for key in both}),
    ):
        metric = result.metrics[name]
        assert metric.n == len(hits) and metric.value == pytest.approx(np.mean(list(hits.values())))
        assert metric.chance == pytest.approx(np.mean(list(chance.values())))
        own = [key for key in hits if int(key[4:]) % 2]
        assert result.metrics[f"{name}[why]"].value == pytest.approx(np.mean([hits[key] for key in own]))
        assert result.metrics[f"{name}[why]"].chance == pytest.approx(np.mean([chance[key] for key in own]))


def test_probabilities_are_a_softmax_over_the_choices() -> None:
    examples = questions(4)
    details = VCR.run(TunedModel(scores), examples).details
    for row, answers, reasons in zip(examples.examples, details.answers, details.reasons, strict=True):
        logits = np.array([scores(row.pictures[0], f"{row.text} {each}") for each in row.choices])
        assert answers == pytest.approx(tuple(np.exp(logits) / np.exp(logits).sum()))
        assert [bool(each) for each in reasons] == [bool(row.reasons) and k == row.label for k in range(len(answers))]


def test_chunks_do_not_matter() -> None:
    """More texts than are encoded at a time, of unequal numbers."""
    examples = questions(90)
    model = TunedModel(scores)
    details = VCR.run(model, examples).details
    assert len(model.calls["text"]) > 1 and max(model.calls["text"]) <= 256
    alone = VCR.run(TunedModel(scores), replace(examples, examples=examples.examples[-3:])).details
    assert alone.answers == details.answers[-3:] and alone.reasons == details.reasons[-3:]


def test_what_is_withheld_is_predicted_for_the_server() -> None:
    rows = [replace(row, label=-1, reason=-1) for row in questions(8).examples if row.reasons and len(row.choices) == 4]
    result = VCR.run(TunedModel(scores), numbered("chosen", rows))
    assert result.metrics == {}
    table = list(csv.DictReader(io.StringIO(VCR.submission(result))))
    columns = ["annot_id", *(f"answer_{k}" for k in range(4))]
    columns += [f"rationale_conditioned_on_a{label}_{k}" for label in range(4) for k in range(4)]
    assert list(table[0]) == columns and len(table) == len(rows)
    row = rows[0]
    logits = np.array([scores(row.pictures[0], f"{row.text} {row.choices[2]} {r}") for r in row.reasons])
    got = [float(table[0][f"rationale_conditioned_on_a2_{k}"]) for k in range(4)]
    assert got == pytest.approx(list(np.exp(logits) / np.exp(logits).sum()))
    # Where the right answer is known the other three are not asked for.
    known = next(csv.DictReader(io.StringIO(VCR.submission(VCR.run(TunedModel(scores), questions(2))))))
    assert known["annot_id"] == "val-0" and known["answer_0"] and not known["rationale_conditioned_on_a0_0"]


def test_training_asks_for_answers_and_reasons_by_turns() -> None:
    texts = VCR.wanted(()).texts
    assert texts is not None
    row = questions(2).examples[1]
    asked = {epoch: texts(row, epoch) for epoch in (0, 1, 2)}
    assert asked[0] == asked[2] != asked[1]
    assert sorted((asked[0], asked[1]), key=lambda each: len(each[0][0])) == [
        ([f"q1 a1.{k}" for k in range(4)], 1),
        ([f"q1 a1.1 r1.{k}" for k in range(4)], 1),
    ]
    bare = questions(1).examples[0]
    assert all(texts(bare, epoch) == (["q0 a0.0", "q0 a0.1"], 0) for epoch in (0, 1))
