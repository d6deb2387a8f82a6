"""How right each answer of a list is, for one question after another, quickly.

The list has thousands of answers and the split hundreds of thousands of questions, but people gave at most ten different answers
to each. So nothing is compared that nobody said, and no answer is normalised twice. The scores are those of
`vqa_accuracy.vqa_accuracy`, for every answer of the list, as the tests hold; GQA's are those of `exact_match`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from multiway.tasks.vqa_accuracy import normalise, vqa_accuracy

__all__ = ["AnswerScores", "most_given", "normal"]

_REMEMBERED = 1 << 18  # VQAv2's train and val hold fewer different answers

normal = lru_cache(maxsize=_REMEMBERED)(normalise)
"""`normalise`, remembered: the same answers are given thousands of times."""


def _exact(answer: str) -> str:
    """As GQA compares: but for case and space around it."""
    return _written(answer).lower()


def _written(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def most_given(given: Sequence[str], official: bool = True) -> str:
    """The answer that most people gave, the earlier of equals, in the form in which it is listed."""
    plain = normal if official else _exact
    return Counter(map(plain, given)).most_common(1)[0][0]


class AnswerScores:
    """Scores of the answers of a list.

    Args:
        answers: the list.
        official: by ten people, as VQA; otherwise by the one right answer, as GQA. Where there is one answer to a question of VQA
            it is the right one, too.
    """

    def __init__(self, answers: Sequence[str], official: bool = True) -> None:
        self.official = official
        self._as_written = _places(map(_written, answers))
        self._plain = _places(map(normal if official else _exact, answers))

    def __call__(self, given: Sequence[str]) -> dict[int, float]:
        """Score in (0, 1] of each answer, by its number in the list, that has any.

        Args:
            given: people's answers to one question, at least one.
        """
        if not self.official or len(given) == 1:
            return dict.fromkeys(self._plain.get(most_given(given, self.official), ()), 1.0)
        if len({_written(each) for each in given}) == 1:  # the challenge then compares what was written
            return dict.fromkeys(self._as_written.get(_written(given[0]), ()), _by_count(len(given), len(given)))
        return {
            number: _by_count(people, len(given))
            for answer, people in Counter(map(normal, given)).items()
            for number in self._plain.get(answer, ())
        }


def _places(answers: Iterable[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for number, answer in enumerate(answers):
        places.setdefault(answer, []).append(number)
    return places


@lru_cache(maxsize=1024)
def _by_count(same: int, people: int) -> float:
    """Accuracy of an answer that so many of the people gave."""
    return vqa_accuracy("yes", ["yes"] * same + ["no"] * (people - same))
