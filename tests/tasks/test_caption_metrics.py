"""Caption metrics: against numbers that pycocoevalcap gave (scripts/caption_fixture.py made them), against slow twins, at the edges."""

import json
import math
import re
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.tasks.caption_metrics import (
    DocumentFrequencies,
    bleu,
    cider_d,
    document_frequencies,
    measure,
    rouge_l,
    tokenise,
)
from multiway.tasks.caption_metrics.ngrams import count
from multiway.tasks.caption_metrics.rouge import common

KNOWN = json.loads((Path(__file__).parent / "fixtures" / "captions.json").read_text(encoding="utf-8"))
words = st.lists(st.sampled_from(["a", "cat", "dog", "on", "mat", "red"]), max_size=7).map(" ".join)
corpora = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=4)), min_size=1, max_size=6).map(
    lambda pictures: ([each[0] for each in pictures], [each[1] for each in pictures])
)


# The tokeniser


def test_tokens_are_those_of_the_java_tokeniser():
    texts = [*KNOWN["candidates"], *chain(*KNOWN["references"])]
    tokens = [*KNOWN["candidate_tokens"], *chain(*KNOWN["reference_tokens"])]
    assert len(texts) > 150
    assert [tokenise(text) for text in texts] == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man can't; the dogs' and man's", "a man ca n't the dogs and man 's"),
        ("gonna cannot 'twas y'all", "gon na can not 't was y' all"),
        ("U.S. flag in the U.S.", "u.s. flag in the u.s."),
        ("ends with st.", "ends with st."),
        ("ends with street.", "ends with street"),
        ("Miss. is not miss.", "miss. is not miss"),
        ("the letter G. The man", "the letter g the man"),
        ("(left) [x] {y}", "-lrb- left -rrb- -lsb- x -rsb- -lcb- y -rcb-"),
        ("well-known and/or e-mail 1,000 10:30", "well-known and/or e-mail 1,000 10:30"),
        ("wait... what?! no! yes?", "wait what ?! no yes"),
        ("1 1/2 cups", "1\u00a01/2 cups"),
        ("emoji \U0001f600 here", "emoji here"),
        ("", ""),
        (" . ", ""),
    ],
)
def test_what_matters_in_captions(text, tokens):
    assert tokenise(text) == tokens


def test_fast_path_takes_nothing_from_the_rules(monkeypatch):
    """Plain words are taken without asking the rules, which would say the same."""
    from multiway.tasks.caption_metrics import ptb

    texts = [*KNOWN["candidates"], *chain(*KNOWN["references"]), "a cat, a dog", "on Ave.", "I am here .", "cannot"]
    fast = [tokenise(text) for text in texts]
    never = re.compile(r"(?!)")
    monkeypatch.setattr(ptb, "_SIMPLE", never)
    monkeypatch.setattr(ptb, "_END", never)
    assert [tokenise(text) for text in texts] == fast


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_parted(text):
    tokens = tokenise(text)
    assert tokens == tokens.strip(" ") and "  " not in tokens and "\n" not in tokens
    assert not set(tokens.split(" ")) & {".", ",", "!", "''"}


# Values


def test_equal_to_pycocoevalcap():
    found = measure(KNOWN["candidates"], KNOWN["references"])
    assert list(found) == list(KNOWN["value"])
    for name, corpus in found.items():
        assert corpus.value == pytest.approx(KNOWN["value"][name], abs=1e-12)
        np.testing.assert_allclose(corpus.pictures, KNOWN["pictures"][name], rtol=1e-9, atol=1e-12)


def grams(text, n):
    parts = text.split()
    return Counter(tuple(parts[at : at + n]) for at in range(len(parts) - n + 1))


def slow_bleu(candidates, references, order):
    product, own, closest = 1.0, 0, 0
    for text, known in zip(candidates, references):
        length = len(text.split())
        own += length
        closest += min((abs(len(each.split()) - length), len(each.split())) for each in known)[1]
    for n in range(1, order + 1):
        found = written = 0
        for text, known in zip(candidates, references):
            most = Counter()
            for each in known:
                most |= grams(each, n)
            found += (grams(text, n) & most).total()
            written += grams(text, n).total()
        product *= (found + 1e-15) / (written + 1e-9)
    ratio = (own + 1e-15) / (closest + 1e-9)
    return product ** (1 / order) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1)


def slow_cider(candidates, references):
    def vector(text, n):
        return {
            gram: times * (math.log(len(references)) - math.log(max(1, frequency[gram])))
            for gram, times in grams(text, n).items()
        }

    frequency = Counter(
        gram for known in references for gram in {g for r in known for n in range(1, 5) for g in grams(r, n)}
    )
    scores = []
    for text, known in zip(candidates, references):
        total = 0.0
        for each in known:
            delta = grams(text, 2).total() - grams(each, 2).total()
            for n in range(1, 5):
                ours, theirs = vector(text, n), vector(each, n)
                dot = sum(min(weight, theirs.get(gram, 0)) * theirs.get(gram, 0) for gram, weight in ours.items())
                norm = math.hypot(*ours.values()) * math.hypot(*theirs.values())
                total += dot / (norm or 1) * math.exp(-(delta**2) / 72)
        scores.append(10 * total / 4 / len(known))
    return sum(scores) / len(scores)


def slow_common(first, second):
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return 1 + slow_common(first[:-1], second[:-1])
    return max(slow_common(first[:-1], second), slow_common(first, second[:-1]))


@settings(max_examples=60, deadline=None)
@given(corpora)
def test_equal_to_slow_twins(corpus):
    candidates, references = corpus
    for order, found in enumerate(bleu(candidates, references), start=1):
        assert found.value == pytest.approx(slow_bleu(candidates, references, order), rel=1e-9, abs=1e-12)
    assert cider_d(candidates, references).value == pytest.approx(slow_cider(candidates, references), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_common_subsequence(first, second):
    assert common(first, second) == slow_common(first, second)


def test_what_references_say_scores_full():
    texts = ["a cat sits on the mat", "two dogs run in the wide snow", "a red bus waits at a stop"]
    same = [[text, text] for text in texts]
    assert [round(found.value, 6) for found in bleu(texts, same)] == [1, 1, 1, 1]
    assert rouge_l(texts, same).value == pytest.approx(1)
    assert cider_d(texts, same).value == pytest.approx(10)  # the scale's end; people reach about 0.9
    others = texts[1:] + texts[:1]
    assert cider_d(others, same).value < 0.3 and bleu(others, same)[3].value < 0.01


def test_order_of_pictures_and_of_references_changes_nothing():
    candidates, references = KNOWN["candidates"], KNOWN["references"]
    turned = measure(candidates[::-1], [known[::-1] for known in references[::-1]])
    for name, corpus in measure(candidates, references).items():
        assert turned[name].value == pytest.approx(corpus.value, abs=1e-12)
        np.testing.assert_allclose(turned[name].pictures[::-1], corpus.pictures, atol=1e-12)


def test_frequencies_of_another_set():
    candidates, references = KNOWN["candidate_tokens"], KNOWN["reference_tokens"]
    counted = document_frequencies(references)
    assert counted.counts[("a",)] == sum(any("a" in r.split() for r in known) for known in references)
    whole, part = cider_d(candidates, references), cider_d(candidates[:5], references[:5], counted)
    np.testing.assert_allclose(part.pictures, whole.pictures[:5])
    assert cider_d(candidates[:1], references[:1]).value == 0  # one picture: every word is in all of them
    assert cider_d(candidates[:1], references[:1], counted).value > 0


def test_grams_are_counted_and_spelled():
    unigrams, bigrams = count([["a", "b", "a", "b"], [], ["b"], ["a", "b"]], 2)
    assert {(int(t), unigrams.spelled[int(g)], int(c)) for t, g, c in zip(unigrams.text, unigrams.gram, unigrams.count)} == {
        (0, ("a",), 2), (0, ("b",), 2), (2, ("b",), 1), (3, ("a",), 1), (3, ("b",), 1)
    }  # fmt: skip
    assert {(int(t), bigrams.spelled[int(g)], int(c)) for t, g, c in zip(bigrams.text, bigrams.gram, bigrams.count)} == {
        (0, ("a", "b"), 2), (0, ("b", "a"), 1), (3, ("a", "b"), 1)
    }  # fmt: skip


# Intervals


def test_interval_is_that_of_resampling_whole_pictures():
    candidates, references = KNOWN["candidate_tokens"], KNOWN["reference_tokens"]
    generator = np.random.default_rng(1)
    draws = []
    for _ in range(300):
        chosen = generator.integers(0, len(candidates), len(candidates))
        again = bleu([candidates[n] for n in chosen], [references[n] for n in chosen])
        draws.append([found.value for found in again])
    for found, ends in zip(bleu(candidates, references), np.percentile(draws, [2.5, 97.5], axis=0).T):
        interval = found.interval()
        assert interval.value == found.value and interval.low < found.value < interval.high
        assert interval[1:] == pytest.approx(ends, abs=0.03)
        assert interval == found.interval() != found.interval(seed=1)


# Errors


@pytest.mark.parametrize(
    ("candidates", "references", "error", "says"),
    [
        (["a"], [["a"], ["b"]], ValueError, "1 captions and references of 2 pictures"),
        ([], [], ValueError, "at least one"),
        (["a", "b"], [["a"], []], ValueError, "picture 1 has no reference"),
        (["a"], ["a cat"], TypeError, "one string; expected a list"),
        ([None], [["a"]], TypeError, "picture 0 has the caption None"),
        (["a"], [[3]], TypeError, "the caption 3 of type int"),
    ],
)
def test_what_cannot_be_measured_is_refused(candidates, references, error, says):
    for metric in (bleu, rouge_l, cider_d, measure):
        with pytest.raises(error, match=says):
            metric(candidates, references)


def test_what_is_too_long_for_a_caption_is_refused():
    assert tokenise("cat " * 5000).count("cat") == 5000
    with pytest.raises(ValueError, match="a caption of 1,000,000 characters begins with 'aaaa"):
        measure(["a" * 1_000_000], [["a cat"]])


def test_impossible_frequencies_are_refused():
    with pytest.raises(ValueError, match="occur in 5 of 3 pictures"):
        DocumentFrequencies(3, {("a",): 5})
    with pytest.raises(ValueError, match="0 pictures"):
        DocumentFrequencies(0, {})
