"""VQA: accuracy against the benchmark's own code for each answer, chance against every constant, submissions."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuned_model import TunedModel, numbered, one

from multiway.abilities import LacksAbility
from multiway.data.annotated.open import open_examples
from multiway.data.examples import Asked, Judged
from multiway.data.source import DataError
from multiway.tasks import TASKS
from multiway.tasks.answer_scores import AnswerScores, most_given
from multiway.tasks.vqa import Vqa
from multiway.tasks.vqa_accuracy import answer_list, exact_match, vqa_accuracy

LIST = ("2", "yes", "red", "no", "t shirt", "two", "Yes")
SAID = ["two", "2", "yes", "Yes", "the red", "red.", "t-shirt", "T shirt", "none", "a", "no", "blue", " yes", "yes\n"]
VQA = Vqa(resamples=30)


@given(answers=st.lists(st.sampled_from(SAID), min_size=2, max_size=10))
@settings(max_examples=150, deadline=None)
def test_scores_are_the_benchmarks_for_every_answer(answers: list[str]) -> None:
    got = AnswerScores(LIST)(answers)
    for number, answer in enumerate(LIST):
        assert got.get(number, 0.0) == pytest.approx(vqa_accuracy(answer, answers)), (answer, answers)
    exact = AnswerScores(LIST, official=False)([answers[0]])
    assert exact == {n: 1.0 for n, answer in enumerate(LIST) if exact_match(answer, answers[0])}


def questions() -> Any:
    """Groups of unlike sizes, people who disagree, an answer that is not listed, and one that is withheld."""
    people = {
        "red": ("red",) * 10,
        "two": ("two",) * 7 + ("2",) * 3,
        "maybe": ("yes",) * 2 + ("no",) * 3 + ("maybe",) * 5,
        "green": ("green",) * 9 + ("red",),
    }
    rows = [
        Asked(str(100 + n), (n // 3,), f"what {n}", "", ("number", "other")[n % 2], people[list(people)[n % 4]])
        for n in range(30)
    ]
    rows[7] = replace(rows[7], answers=())
    return numbered("asked", rows)


def test_accuracy_and_chance_equal_brute_force() -> None:
    examples, answers = questions(), ("red", "2", "yes", "no")
    model = TunedModel(lambda picture, text: one(answers, answers[(picture + len(text)) % 4]), answers)
    result = VQA.run(model, examples)
    known = [row for row in examples.examples if row.answers]
    given = dict(zip(result.details.keys, result.details.given, strict=True))
    for name, own in [("accuracy", known)] + [
        (f"accuracy[{g}]", [r for r in known if r.group == g]) for g in ("number", "other")
    ]:
        metric = result.metrics[name]
        assert metric.n == len(own)
        assert metric.value == pytest.approx(np.mean([vqa_accuracy(given[row.key], row.answers) for row in own]))
        constants = [np.mean([vqa_accuracy(answer, row.answers) for row in own]) for answer in answers]
        assert metric.chance == pytest.approx(max(constants))
    best = [max(vqa_accuracy(answer, row.answers) for answer in answers) for row in known]
    assert result.metrics["best_of_list"].value == pytest.approx(np.mean(best))
    assert np.isnan(result.details.scores[7]) and result.metrics["accuracy"].low <= result.metrics["accuracy"].value


def test_the_one_who_knows_is_as_good_as_the_list_and_a_constant_as_chance() -> None:
    examples, answers = questions(), ("red", "2", "yes", "no")
    best = {"0": "red", "1": "2", "2": "no", "3": "red"}
    knows = TunedModel(lambda picture, text: one(answers, best[str(int(text.split()[1]) % 4)]), answers)
    result = VQA.run(knows, examples)
    assert result.metrics["accuracy"].value == result.metrics["best_of_list"].value < 1
    constant = VQA.run(TunedModel(lambda picture, text: one(answers, "red"), answers), examples).metrics["accuracy"]
    assert constant.value == constant.chance


def test_every_picture_is_encoded_about_once_and_a_chunk_at_a_time() -> None:
    rows = [Asked(str(n), (n * 7 % 200,), "what", "", "", ("red",)) for n in range(1000)]
    model = TunedModel(lambda picture, text: one(("red", "no"), "red"), ("red", "no"))
    assert VQA.run(model, numbered("asked", rows)).metrics["accuracy"].value == 1.0
    assert max(model.calls["text"]) <= 256 and sum(model.calls["text"]) == 1000
    assert 200 <= sum(model.calls["image"]) < 200 + len(model.calls["image"])


def test_withheld_answers_give_predictions_and_no_score() -> None:
    rows = [Asked(str(n), (n,), "what") for n in range(3)]
    result = VQA.run(TunedModel(lambda picture, text: one(("a1", "b1"), "b1"), ("a1", "b1")), numbered("asked", rows))
    assert result.metrics == {} and result.details.given == ("b1",) * 3
    assert VQA.submission(result) == [{"question_id": n, "answer": "b1"} for n in range(3)]
    gqa = replace(TASKS["gqa"], resamples=30)  # type: ignore[type-var]
    assert gqa.submission(result)[0] == {"questionId": "0", "prediction": "b1"}  # type: ignore[attr-defined]


def test_gqa_has_one_answer() -> None:
    gqa = Vqa("gqa", official=False, least=1, resamples=30)
    rows = [Asked(str(n), (n,), "what", "", "", (("t-shirt", "one", "The left")[n % 3],)) for n in range(9)]
    examples = numbered("asked", rows, split="train")
    answers = gqa.answers(examples)
    assert answers == ("one", "t-shirt", "the left"), "as they are written, not as VQA normalises them"
    assert gqa.wanted(answers).targets(("T-shirt ",)).tolist() == [0, 1, 0]  # type: ignore[misc]
    model = TunedModel(lambda picture, text: one(answers, "the left"), answers)
    metric = gqa.run(model, examples).metrics["accuracy"]
    assert metric.value == metric.chance == pytest.approx(1 / 3)


def test_the_list_and_the_targets_are_the_fields() -> None:
    rng = np.random.default_rng(0)
    words = ["red", "two", "2", "the cat", "cat", "yes", "Yes", "no", "a", "dog"]
    rows = [Asked(str(n), (0,), "what", "", "", tuple(rng.choice(words, 10))) for n in range(300)]
    vqa, examples = Vqa(size=4, least=5), numbered("asked", rows)
    assert vqa.answers(examples) == answer_list((row.answers for row in rows), 4, 5)
    assert Vqa(scanned=3).answers(examples) == Vqa().answers(examples), "all of a file is looked at"
    target = vqa.wanted(("2", "cat", "owl")).targets(("two",) * 2 + ("2",) + ("the cat",) * 5 + ("dog",) * 2)  # type: ignore[misc]
    assert target.tolist() == pytest.approx([0.9, 1.0, 0.0])
    few = numbered("asked", rows[:4])
    assert len(Vqa().answers(few)) >= 2, "of a handful of questions all answers are listed"
    with pytest.raises(DataError, match="1 different answers; expected at least two"):
        Vqa().answers(numbered("asked", [Asked("1", (0,), "what", answers=("yes",) * 10)]))
    endless = open_examples("scenes:easy,objects=1-3", "vqa", "train")
    assert {"red", "yes", "1"} & set(Vqa(scanned=60, least=1).answers(endless))
    assert most_given(("b", "c", "c", "b")) == "b" and most_given(("The Cat",), official=False) == "the cat"


def test_a_large_split_is_scored_in_seconds() -> None:
    """3,129 answers and 20,000 questions: a table of all of them would be 63 million normalisations."""
    answers = tuple(f"w{n}" for n in range(3129))
    rows = [
        Asked(str(n), (n,), "", "", "other", tuple(f"w{(n * 31 + k // 3) % 5000}" for k in range(10)))
        for n in range(20_000)
    ]
    scores = AnswerScores(answers)
    began = time.process_time()
    table = [scores(row.answers) for row in rows]
    metrics = list(Vqa(resamples=10).metrics(rows, [0.0] * len(rows), table, len(answers)))
    assert time.process_time() - began < 8
    assert metrics[0].value == 0.0 and 0 < metrics[-1].value < 1  # type: ignore[operator]


def test_refusals() -> None:
    model = TunedModel(lambda *row: [1.0, 0.0], ("a1", "b1"), able=("judge",))
    with pytest.raises(LacksAbility, match="`vqa` needs answer"):
        VQA.run(model, questions())
    able = TunedModel(lambda *row: [1.0, 0.0], ("a1", "b1"))
    with pytest.raises(DataError, match="takes `asked` examples; numbered has `judged`"):
        VQA.run(able, numbered("judged", [Judged("1", (0,), "a")]))
    with pytest.raises(DataError, match="numbered@val, which has no examples"):
        VQA.run(able, numbered("asked", []))
    with pytest.raises(DataError, match="about 1 pictures; the examples of numbered are about 2"):
        VQA.run(able, numbered("asked", [Asked("1", (0, 1), "a")]))
    with pytest.raises(DataError, match="row 1 is about 2 pictures, the first example about 1"):
        VQA.run(able, numbered("asked", [Asked(str(n), tuple(range(1 + n)), "a", f"row {n}") for n in range(2)]))
    with pytest.raises(DataError, match="takes annotated examples; given pictures with captions: toy"):
        VQA.run(able, type("S", (), {"name": "toy", "split": "test"})())
