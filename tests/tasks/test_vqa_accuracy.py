"""VQA accuracy: against the plain loop over ten sets of nine, and what normalisation does to the letter."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.tasks.vqa_accuracy import (
    accuracy_by_type,
    answer_list,
    answer_type,
    answer_weights,
    exact_match,
    normalise,
    soft_targets,
    vqa_accuracy,
)

ANSWERS = ["yes", "no", "Yes.", "two", "2", "the dog", "dog", "1,000", "cant", "can't", "red/blue", "a"]


def plain_loop(given_answer, answers):
    if len(set(answers)) > 1:
        given_answer, answers = normalise(given_answer), [normalise(each) for each in answers]
    sets = list(combinations(answers, len(answers) - 1))
    return sum(min(sum(each == given_answer for each in nine) / 3, 1) for nine in sets) / len(sets)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ANSWERS), st.lists(st.sampled_from(ANSWERS), min_size=10, max_size=10))
def test_equal_to_ten_choose_nine(answer, answers):
    assert vqa_accuracy(answer, answers) == pytest.approx(plain_loop(answer, answers), abs=1e-12)


@pytest.mark.parametrize(("people", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_accuracy_by_people(people, score):
    assert vqa_accuracy("cat", ["cat"] * people + ["dog"] * (10 - people)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("The Dog", "dog"),
        ("two dogs", "2 dogs"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("let's", "let's"),
        ("red/blue", "red blue"),  # a mark within words parts them
        ("red / blue", "red blue"),  # beside a space it is deleted
        ("red/blue, green", "red blue green"),
        ("t-shirt - red", "tshirt red"),  # ... everywhere, if it stands beside a space once
        ("1,000 a-b", "1000 ab"),  # digits around a comma: all marks are deleted
        ("3.5", "3.5"),
        ("3.", "3"),
        ("a.5", "a.5"),
        ("U.S.A.", "usa"),
        ("it's 5 o'clock", "it's 5 o'clock"),
        (" new\nline\ttab ", "new line tab"),
        ("a", ""),
        ("." * 40, "." * 8),  # no more than 32 full stops go
    ],
)
def test_normalisation(answer, plain):
    assert normalise(answer) == plain


def test_where_all_agree_nothing_is_normalised():
    assert vqa_accuracy("two", ["2"] * 10) == 0
    assert vqa_accuracy("two", ["2"] * 10, normalise_agreed=True) == 1
    assert vqa_accuracy("two", ["2"] * 9 + ["3"]) == 1
    assert vqa_accuracy(" the cat\n", ["the cat"] * 10) == 1


def test_exact_match():
    assert exact_match(" Yes ", "yes") == 1
    assert exact_match("yes", "yes sir") == 0


def test_soft_targets_are_the_accuracies():
    answers = ["cat"] * 4 + ["Dogs."] * 3 + ["two", "2", "bird"]
    vocabulary = {answer: number for number, answer in enumerate(["cat", "dogs", "2", "fox"])}
    targets = soft_targets(answers, vocabulary)
    assert targets == pytest.approx({0: 1.0, 1: 0.9, 2: 0.6})
    for answer, number in vocabulary.items():
        assert vqa_accuracy(answer, answers) == pytest.approx(targets.get(number, 0.0))
    assert soft_targets(["fox"], vocabulary) == {3: 1.0}
    assert soft_targets(["crow"] * 10, vocabulary) == {}
    assert answer_weights(answers) == pytest.approx({"cat": 0.4, "dogs": 0.3, "2": 0.2, "bird": 0.1})


def test_answer_list():
    questions = [["yes"] * 7 + ["no"] * 3, ["no"] * 10, ["yes"] * 10, ["Two"] * 6 + ["3"] * 4, ["a"] * 10]
    assert answer_list(questions) == ("yes", "2", "no")
    assert answer_list(questions, size=2) == ("yes", "2")
    assert answer_list(questions, least=2) == ("yes",)
    assert answer_list(questions, counted="all") == ("yes", "no", "2", "3")
    assert answer_list(questions, counted="all", least=5) == ("yes", "no", "2")
    with pytest.raises(ValueError, match="at least 3 times among 3"):
        answer_list(questions, least=3)
    with pytest.raises(ValueError, match="both at least 1"):
        answer_list(questions, size=0)


def test_types():
    assert [answer_type(each) for each in ("Yes!", "no", "two", "3.5", "two dogs", "blue")] == [
        "yes/no", "yes/no", "number", "number", "other", "other"
    ]  # fmt: skip
    found = accuracy_by_type([1, 0, 1, 0.3, 0.6], ["yes/no", "yes/no", "number", "other", "other"])
    assert {name: round(each.value, 6) for name, each in found.items()} == {"number": 1, "other": 0.45, "yes/no": 0.5}
    assert all(each.low <= each.value <= each.high for each in found.values())
    with pytest.raises(ValueError, match="5 scores and 1 types"):
        accuracy_by_type([1] * 5, ["other"])


def test_errors():
    with pytest.raises(ValueError, match="use exact_match"):
        vqa_accuracy("cat", ["cat"])
    with pytest.raises(ValueError, match="at least two"):
        vqa_accuracy("cat", "cat")
    with pytest.raises(TypeError, match="expected text"):
        normalise(None)
    with pytest.raises(TypeError, match="expected text"):
        vqa_accuracy("cat", ["cat"] * 9 + [2])
    with pytest.raises(ValueError, match="withheld"):
        answer_weights([])
