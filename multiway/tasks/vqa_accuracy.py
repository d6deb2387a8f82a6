"""VQA accuracy (Antol et al. 2015, "VQA: Visual Question Answering", arXiv:1505.00468, section 4; Goyal et al. 2017 for VQAv2), and the targets that
classifiers over an answer list are trained with.

Ten people answered each question. An answer is right as far as people gave it:

    accuracy(a) = mean over the ten sets of nine people of min(people in the set who answered a / 3, 1)

so one, two, three, four people make 0.3, 0.6, 0.9 and 1. Before the comparison both sides are normalised: lower case, no punctuation,
number words as digits, no articles, apostrophes put back into contractions. `normalise` follows the evaluation code of the
challenge to the letter, including what was hardly meant: "1,000 a-b" loses its hyphen without a space because there are digits
around a comma, a full stop before a digit stays, "none" is 0. That code leaves *both* sides as they are where all people agree; see
`vqa_accuracy`.

GQA has one answer per question and scores exact matches (Hudson and Manning 2019, arXiv:1902.09506).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from multiway.tasks import statistics
from multiway.tasks.statistics import Interval

__all__ = [
    "accuracy_by_type",
    "answer_list",
    "answer_type",
    "answer_weights",
    "exact_match",
    "normalise",
    "soft_targets",
    "vqa_accuracy",
]

_ENOUGH = 3  # people who make an answer right
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_FULL_STOPS = 32  # removed at most: the original passes a flag of this value where the number of replacements belongs
_ARTICLES = frozenset(["a", "an", "the"])
_NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""


def _misspelled() -> dict[str, str]:
    """Each contraction by how it is spelled with one apostrophe left out."""
    table = {}
    for word in _CONTRACTIONS.split():
        for place in (at for at, letter in enumerate(word) if letter == "'"):
            table[word[:place] + word[place + 1 :]] = word
    return table | {"somebody'd": "somebodyd"}  # the one entry that goes the other way


_SPELLED = _misspelled()


def normalise(answer: str) -> str:
    """An answer as the challenge compares it.

    Answers are remembered: of VQA's ten to each question few are new (100,000 drawn like them: 114 ms instead of 564).

    Raises:
        TypeError: for what is no string.
    """
    return _normalised(_trimmed(answer))


@lru_cache(maxsize=1 << 16)
def _normalised(text: str) -> str:
    # A mark that stands beside a space anywhere is deleted, others part words; with digits around a comma all are deleted.
    between_digits = _DIGIT_COMMA.search(text) is not None
    plain = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if beside_space or between_digits else " ")
    plain = _FULL_STOP.sub("", plain, count=_FULL_STOPS)
    words = (_NUMBERS.get(word, word) for word in plain.lower().split())
    return " ".join(_SPELLED.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(given: str, answers: Sequence[str], *, normalise_agreed: bool = False) -> float:
    """Accuracy of one answer against those of people, in [0, 1].

    Args:
        given: the model's answer.
        answers: as people gave them, ten in VQA; at least two.
        normalise_agreed: normalise although all people gave the same answer. The challenge's code does not, so as to leave text
            that was read off the picture alone (GT-Vision-Lab/VQA, issue 14): where all said "2", "two" and "2." are wrong, and
            "Yes" where all said "yes".

    Raises:
        ValueError: for fewer than two answers.
        TypeError: for what is no string.
    """
    if isinstance(answers, str) or len(answers) < 2:
        raise ValueError(
            f"VQA accuracy was given the answers {answers!r}; expected at least two, of as many people. Where there is one right "
            f"answer, use exact_match"
        )
    ours, theirs = _trimmed(given), [_trimmed(answer) for answer in answers]
    if len(set(theirs)) > 1 or normalise_agreed:
        ours, theirs = normalise(given), [normalise(answer) for answer in answers]
    same, people = theirs.count(ours), len(theirs)
    # Leaving out one who gave this answer happens `same` times of `people`.
    without, with_all = min((same - 1) / _ENOUGH, 1.0), min(same / _ENOUGH, 1.0)
    return (same * without + (people - same) * with_all) / people if same else 0.0


def exact_match(given: str, answer: str) -> float:
    """1 where the two are equal but for case and space around them, else 0: accuracy on GQA.

    Raises:
        TypeError: for what is no string.
    """
    return float(_trimmed(given).lower() == _trimmed(answer).lower())


def soft_targets(answers: Sequence[str], vocabulary: Mapping[str, int]) -> dict[int, float]:
    """Targets of a classifier with a sigmoid per answer (Teney et al. 2018, arXiv:1708.02711, section 3.8).

    Those of 1, 2, 3 and more people are 0.3, 0.6, 0.9 and 1, the accuracy that the answer would get. Where there is one answer
    only, it has 1.

    Args:
        answers: as people gave them; empty where they are withheld.
        vocabulary: number of each normalised answer of the list; others are left out, and nothing may be left.
    """
    counts = Counter(normalise(answer) for answer in answers)
    return {
        vocabulary[answer]: 1.0 if len(answers) == 1 else min(0.3 * people, 1.0)
        for answer, people in counts.items()
        if answer in vocabulary
    }


def answer_weights(answers: Sequence[str]) -> dict[str, float]:
    """Each different normalised answer with the share of people who gave it: how much a decoder learns from it (ALBEF, arXiv:2107.07651).

    Raises:
        ValueError: without answers.
    """
    if not answers:
        raise ValueError("given no answers; leave out questions whose answers are withheld")
    counts = Counter(normalise(answer) for answer in answers)
    return {answer: people / len(answers) for answer, people in counts.items()}


def answer_list(
    questions: Iterable[Sequence[str]],
    size: int | None = None,
    least: int = 1,
    *,
    counted: Literal["first", "all"] = "first",
) -> tuple[str, ...]:
    """The answers that a classifier chooses from: the most frequent normalised ones, the most frequent first.

    Args:
        questions: people's answers to each training question.
        size: how many to keep; all by default.
        least: how often an answer must occur. VQAv2 with 9 gives the list of about 3,129 that most code bases train on.
        counted: `first` counts each question once, by the answer that most people gave (the earlier given of equals); `all` counts
            every answer of every person.

    Raises:
        ValueError: for sizes below 1, or if nothing is left.
    """
    if least < 1 or (size is not None and size < 1):
        raise ValueError(
            f"an answer list of size {size} with answers given at least {least} times; expected both at least 1"
        )
    counts: Counter[str] = Counter()
    for answers in questions:
        plain = [normalise(answer) for answer in answers]
        counts.update(plain if counted == "all" else [word for word, _ in Counter(plain).most_common(1)])
    counts.pop("", None)  # an article or a mark alone: nothing to choose
    kept = sorted(
        (answer for answer, times in counts.items() if times >= least), key=lambda word: (-counts[word], word)
    )
    if not kept:
        raise ValueError(f"no answer occurs at least {least} times among {len(counts)} different ones; lower `least`")
    return tuple(kept[:size])


def answer_type(answer: str) -> Literal["yes/no", "number", "other"]:
    """Type of an answer as VQA reports them, for data that do not say it."""
    plain = normalise(answer)
    if plain in ("yes", "no"):
        return "yes/no"
    return "number" if re.fullmatch(r"\d+([.]\d+)?", plain) else "other"


def accuracy_by_type(
    scores: Sequence[float], types: Sequence[str], units: Sequence[int] | None = None
) -> dict[str, Interval]:
    """Mean accuracy of each type of answer with its interval, types in the order of their names.

    Args:
        scores, types: (Q,) accuracy of each question, and its type.
        units: (Q,) picture of each question; questions about one picture are resampled together.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(scores) != len(types) or (units is not None and len(units) != len(scores)):
        raise ValueError(f"given {len(scores)} scores and {len(types)} types; expected one of each for every question")
    of, values = np.asarray(types), np.asarray(scores, dtype=np.float64)
    return {
        str(name): statistics.mean(values[of == name], None if units is None else np.asarray(units)[of == name])
        for name in np.unique(of)
    }


def _trimmed(answer: str) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"an answer is {answer!r} of type {type(answer).__name__}; expected text")
    return answer.replace("\n", " ").replace("\t", " ").strip()
