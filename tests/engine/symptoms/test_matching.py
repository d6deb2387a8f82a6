"""Matching that does not learn and negatives that teach nothing, from journals that are sick in one way each."""

from __future__ import annotations

import pytest
from albef_journal import PRIOR, between, lines, run
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.engine.doctor import diagnose, render
from multiway.engine.symptoms.matching import false_negatives, matching_at_its_prior, negatives_too_easy

SYMPTOMS = (matching_at_its_prior, negatives_too_easy, false_negatives)
SEEDS = pytest.mark.parametrize("seed", range(4))

STUCK = {"itm": PRIOR}
EASY = {
    "itm": between(PRIOR, 0.12, 0.05, 0.3),
    "student_accuracy": 0.3,
    "hardness": 0.0,
    "negative_cosine": 0.405,
    "random_cosine": 0.4,
    "positive_cosine": 0.7,
}
FALSE = {"negatives_above": between(0.45, 0.4), "match_negative": between(0.34, 0.3), "match_positive": 0.4}


def found(history):
    return [finding for symptom in SYMPTOMS for finding in symptom(history)]


# Healthy runs


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([5, 10, 25]), st.integers(600, 4000), st.floats(0.0, 1.5), st.booleans())
def test_a_healthy_run_has_none(seed, every, steps, noise, planned):
    assert found(run(planned, steps, every=every, seed=seed, noise=noise)) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.integers(600, 4000))
def test_nor_has_its_beginning_but_for_a_note(seed, until, steps):
    seen = found(run(True, steps, seed=seed, until=until))
    assert all(each.severity == "note" and "before the encoders are aligned" in each.what for each in seen), render(
        seen
    )


def test_the_doctor_says_ok_to_a_healthy_journal():
    assert [each.severity for each in diagnose(lines(), context={"steps": 1500})] == ["ok"]


# At the prior


@SEEDS
def test_a_head_that_is_blind_is_named_when_the_encoders_are_aligned(seed):
    (finding,) = found(
        run(**STUCK, student_accuracy=0.8, hardness=0.0, negative_cosine=0.42, match_positive=0.33, seed=seed)
    )
    assert (finding.severity, finding.term) == ("illness", "itm")
    assert "prior 0.6365 of one pair to two negatives (H(1/3) = 0.6365)" in finding.evidence
    assert "; pairs get p(match) 0.3" in finding.evidence
    assert "the fused head does not use the picture: the encoders find " in finding.causes[0]
    assert len(finding.causes) == len(finding.tries)


@SEEDS
@pytest.mark.parametrize(
    ("bent", "clue"),
    [
        ({"student_accuracy": 0.03, "hardness": 0.0, "itc": 7.0}, "the encoders are not aligned yet: a picture finds"),
        (
            {"student_accuracy": 0.4, "hardness": 1.0, "itc": 5.0},
            "the negatives are hard from the start: hardness 1.00",
        ),
        ({"lr": 1e-2, "student_accuracy": 0.8}, "the learning rate is too high: it reached 0.01"),
        ({"lr": 1e-7, "student_accuracy": 0.8}, "the learning rate is too low"),
        ({"itm": between(0.4, PRIOR, 0.3, 0.4)}, "training broke down after step"),
    ],
)
def test_the_likeliest_cause_comes_first(bent, clue, seed):
    (finding,) = matching_at_its_prior(run(seed=seed, **(STUCK | bent)))
    assert finding.severity == "illness"
    assert finding.causes[0].startswith(clue), finding.causes


def test_batch_and_queue_is_not_mistaken_for_the_batch():
    """Among 4,160 candidates 30 % are much; the encoders find 80 % among 64, and are aligned."""
    (finding,) = matching_at_its_prior(
        run(**STUCK, student_accuracy=0.8, image_to_text_accuracy=0.3, negative_cosine=0.42, hardness=0.0)
    )
    assert "does not use the picture" in finding.causes[0]
    assert not any("not aligned" in cause for cause in finding.causes)
    without = run(**STUCK, without=["student_accuracy"], image_to_text_accuracy=0.3, negative_cosine=0.42, hardness=0.0)
    (finding,) = matching_at_its_prior(without)
    assert any("a picture finds its text in 3" in cause for cause in finding.causes)


def test_it_takes_a_hundred_steps_to_warn_and_three_hundred_to_call_it_an_illness():
    def severity(until):
        return [each.severity for each in matching_at_its_prior(run(**STUCK, student_accuracy=0.6, until=until))]

    assert [severity(until / 1500) for until in (100, 200, 400)] == [[], ["warning"], ["illness"]]


@SEEDS
def test_before_the_encoders_are_aligned_it_is_a_note(seed):
    def severity(**bent):
        """Of a contrastive term that stands still, unless it is bent."""
        blind = {"student_accuracy": 0.02, "itc": 5.5, "seed": seed}
        return [each.severity for each in matching_at_its_prior(run(**(STUCK | blind | bent)))]

    assert severity(until=0.15) == ["note"]
    assert severity(steps=4000, until=0.2) == ["note"]
    assert severity(steps=4000, until=0.3) == ["illness"]
    assert severity() == ["illness"]
    assert severity(itc=between(8.3, 1.5), until=0.6) == ["note"]
    assert severity(itc=between(8.3, 1.5), until=0.6, student_accuracy=0.7) == ["illness"]


# Negatives too easy


@SEEDS
def test_negatives_no_harder_than_random_rows(seed):
    (finding,) = found(run(**EASY, seed=seed))
    assert (finding.severity, finding.term, finding.what) == ("warning", "itm", "its negatives are too easy")
    assert finding.causes[0] == "negatives are drawn evenly (hardness 0.00)"
    assert "mean cosine 0.405, rows that are no pairs 0.400, pairs 0.700" in finding.evidence


def test_when_they_are_mined_it_is_for_a_small_batch_or_blind_mining():
    (small,) = found(run(**(EASY | {"hardness": 1.0})))
    assert small.causes[0].startswith("the batch is too small")
    (blind,) = found(run(**(EASY | {"hardness": 1.0, "student_accuracy": 0.1})))
    assert blind.causes[0].startswith("similarities of the encoders say little yet")


@pytest.mark.parametrize(
    "cured",
    [
        {"hardness": between(0.0, 0.6)},  # a curriculum that goes on
        {"student_accuracy": 0.9},
        {"negative_cosine": 0.55},
        {"itm": 0.5},
        {"positive_cosine": 0.42},  # pairs do not stand out: no scale to measure negatives on
    ],
)
def test_easy_negatives_need_all_their_signs(cured):
    assert list(negatives_too_easy(run(**(EASY | cured)))) == []


# False negatives


@SEEDS
@pytest.mark.parametrize("every", [5, 10, 30])
def test_negatives_that_stay_above_their_pairs(seed, every):
    (finding,) = found(run(**FALSE, seed=seed, every=every))
    assert (finding.severity, finding.what) == ("warning", "mined negatives look like pairs")
    assert finding.causes[0].startswith("captions in the data fit several pictures")
    assert (
        "of the mined negatives have a higher cosine than their own pair, and they get p(match) 0." in finding.evidence
    )


def test_believed_far_less_than_pairs_they_are_rather_not_resolved():
    (finding,) = false_negatives(run(**(FALSE | {"match_positive": 0.8})))
    assert finding.causes[0].startswith("pairs differ in what the picture's size")


@pytest.mark.parametrize(
    "cured",
    [
        {"negatives_above": between(0.6, 0.28, 0.3, 1.0)},  # on its way down
        {"match_negative": between(0.4, 0.22, 0.5, 1.0)},
        {"negatives_above": 0.15},
        {"match_negative": 0.1},
        {"hardness": between(0.4, 1.0)},
        {"hardness": 0.2},
        {"itc": 8.0},  # nothing is aligned: any row is as near as the pair
        {"until": 0.4},
    ],
)
def test_false_negatives_need_all_their_signs(cured):
    assert list(false_negatives(run(**(FALSE | cured)))) == []


# What was not logged


@pytest.mark.parametrize(
    ("symptom", "bent", "names"),
    [
        (matching_at_its_prior, STUCK, ["itm"]),
        (
            negatives_too_easy,
            EASY,
            ["itm", "positive_cosine", "negative_cosine", "random_cosine"],
        ),
        (false_negatives, FALSE, ["negatives_above", "match_negative", "itc"]),
    ],
)
def test_without_what_it_needs_a_symptom_is_silent(symptom, bent, names):
    assert list(symptom(run(**bent)))
    for name in names:
        assert list(symptom(run(**bent, without=[name]))) == [], name


def test_numbers_that_only_order_causes_may_be_missing():
    names = ["student_accuracy", "image_to_text_accuracy", "hardness", "negatives_above", "match_positive"]
    names += ["positive_cosine", "negative_cosine", "random_cosine", "match_negative"]
    (finding,) = found(run(**STUCK, without=names))
    assert "nan" not in render([finding]) and finding.severity == "illness"
