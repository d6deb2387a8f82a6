"""Entailment and NLVR2: accuracy, consistency and their chance against counting; submissions as the scripts read them."""

from dataclasses import replace
from typing import Any

import pytest
from tuned_model import TunedModel, numbered, one

from multiway.data.examples import Judged
from multiway.data.source import DataError
from multiway.tasks.judging import Judging

LABELS = ("entailment", "neutral", "contradiction")
TRUTH = ("false", "true")
ENTAILMENT = Judging(resamples=30)
NLVR2 = Judging("nlvr2", 2, resamples=30)


def judged() -> Any:
    rows = [Judged(f"k{n}", (n // 2,), f"s{n}", "", ("a", "b")[n % 2], (0, 1, 1, 2)[n % 4]) for n in range(20)]
    rows[5] = replace(rows[5], label=-1)
    return numbered("judged", rows, LABELS)


def pairs() -> Any:
    """Five sentences, each with four pairs of pictures, as NLVR2 groups them; one is false of all."""
    rows = [
        Judged(f"dev-{n // 4}-{n % 4}-0", (n, n + 1), f"s{n // 4}", "", "", 0 if n // 4 == 3 else n % 2, f"{n // 4}-0")
        for n in range(20)
    ]
    return numbered("judged", rows, TRUTH)


def test_accuracy_over_all_and_by_group() -> None:
    examples = judged()
    # The model's verdicts are in another order than the data's, and one it has beside them.
    names = ("contradiction", "entailment", "unsure", "neutral")
    model = TunedModel(lambda picture, text: one(names, "neutral" if int(text[1:]) < 10 else "entailment"), names)
    result = ENTAILMENT.run(model, examples)
    known = [row for row in examples.examples if row.label >= 0]
    right = {row.key: row.label == (1 if int(row.key[1:]) < 10 else 0) for row in known}
    assert result.metrics["accuracy"].value == pytest.approx(sum(right.values()) / 19)
    assert result.metrics["accuracy"].chance == pytest.approx(9 / 19) and result.metrics["accuracy"].n == 19
    for group in "ab":
        own = [right[row.key] for row in known if row.group == group]
        assert result.metrics[f"accuracy[{group}]"].value == pytest.approx(sum(own) / len(own))
    assert "consistency" not in result.metrics and result.details.right[5] is None
    said = ENTAILMENT.submission(result)
    assert said[0] == {"key": "k0", "prediction": "neutral"} and len(said) == 20


def test_consistency_is_a_sentence_right_every_time() -> None:
    examples = pairs()
    # Right of all but the second pair of sentence 1, whose pictures it confuses.
    truth = {(*row.pictures, row.text): TRUTH[row.label] for row in examples.examples}
    truth[(5, 6, "s1")] = "false"
    model = TunedModel(lambda left, right, text: one(TRUTH, truth[(left, right, text)]), TRUTH)
    result = NLVR2.run(model, examples)
    assert result.metrics["accuracy"].value == pytest.approx(19 / 20)
    assert result.metrics["consistency"].value == pytest.approx(4 / 5) and result.metrics["consistency"].n == 5
    assert NLVR2.submission(result).splitlines()[5] == "dev-1-1-0,false"


def test_chance_is_what_the_best_constant_scores() -> None:
    examples = pairs()
    scored = []
    for name in TRUTH:
        model = TunedModel(lambda left, right, text, name=name: one(TRUTH, name), TRUTH)
        scored.append(NLVR2.run(model, examples).metrics)
    for metric in ("accuracy", "consistency"):
        assert max(each[metric].value for each in scored) == pytest.approx(scored[0][metric].chance)
    assert scored[0]["consistency"].chance == pytest.approx(1 / 5)


def test_the_order_of_the_pictures_reaches_the_model() -> None:
    rows = [Judged(str(n), shown, "s", label=1) for n, shown in enumerate([(3, 1), (1, 3), (2, 2)])]
    seen = []
    model = TunedModel(lambda left, right, text: seen.append((left, right)) or one(TRUTH, "true"), TRUTH)
    NLVR2.run(model, numbered("judged", rows, TRUTH))
    assert sorted(seen) == [(1, 3), (2, 2), (3, 1)] and sum(model.calls["image"]) == 3


def test_withheld_labels_and_other_verdicts() -> None:
    model = TunedModel(lambda left, right, text: one(TRUTH, "true"), TRUTH)
    withheld = numbered("judged", [Judged(f"test2-0-{n}-0", (0, 1), "s") for n in range(2)], TRUTH)
    result = NLVR2.run(model, withheld)
    assert result.metrics == {} and NLVR2.submission(result) == "test2-0-0-0,true\ntest2-0-1-0,true\n"
    with pytest.raises(
        DataError, match="verdicts entailment, neutral, contradiction; this model was tuned to say false, true"
    ):
        ENTAILMENT.run(model, judged())
    with pytest.raises(DataError, match="`nlvr2` is about 2 pictures; the examples of numbered are about 1"):
        NLVR2.run(model, judged())
