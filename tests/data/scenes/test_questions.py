"""Every answer again, from the words of the question alone; and that the words alone do not give it away."""

import re
from collections import Counter, defaultdict
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.scenes.graph import COLOURS, DIFFICULTIES, SHAPES, Scene, Thing, make_scene
from multiway.data.scenes.questions import ANSWERS, KINDS, Question, questions
from multiway.data.scenes.words import words_of

NUMBERS, LEVELS = st.integers(0, 10**6), st.sampled_from(sorted(DIFFICULTIES))
FIELD = {"size": "size", "colour": "colour", "pattern": "texture", "shape": "shape"}


def the(scene: Scene, name: str) -> Thing:
    """The one thing that a name may mean."""
    fit = [thing for thing in scene.things if words_of(name).fit(thing.words)]
    assert len(fit) == 1, f"{name} means {len(fit)} things"
    return fit[0]


def number(scene: Scene, name: str) -> int:
    return sum(words_of(name).fit(thing.words) for thing in scene.things)


def lies(one: Thing, way: str, other: Thing) -> bool:
    """Roughly, by the axis on which they differ more."""
    dx, dy = one.x - other.x, one.y - other.y
    if abs(dx) > abs(dy):
        return way == ("left of" if dx < 0 else "right of")
    return way == ("above" if dy < 0 else "below")


WAY = "(left of|right of|above|below)"


def answer(scene: Scene, text: str) -> str:
    said = lambda truth: "yes" if truth else "no"  # noqa: E731
    if found := re.fullmatch(rf"what (shape|colour) is the thing {WAY} the (.*)\?", text):
        other = the(scene, found[3])
        axis, sign = (
            ("x" if found[2] in ("left of", "right of") else "y"),
            (-1 if found[2] in ("left of", "above") else 1),
        )
        there = [t for t in scene.things if t is not other and sign * (getattr(t, axis) - getattr(other, axis)) > 0]
        assert len(there) == 1, "the thing that is asked for is the only one on that side"
        return str(getattr(there[0], found[1]))
    if found := re.fullmatch(r"what (size|colour|pattern|shape) is the (.*)\?", text):
        return str(getattr(the(scene, found[2]), FIELD[found[1]]))
    if found := re.fullmatch(r"how many (.*) are there\?", text):
        return str(number(scene, found[1]))
    if found := re.fullmatch(r"is there an? (.*)\?", text):
        return said(number(scene, found[1]) > 0)
    if found := re.fullmatch(r"is the (.*) larger than the (.*)\?", text):
        return said(the(scene, found[1]).radius > the(scene, found[2]).radius)
    if found := re.fullmatch(r"are there more (.*) than (.*)\?", text):
        return said(number(scene, found[1]) > number(scene, found[2]))
    found = re.fullmatch(rf"is the (.*) {WAY} the (.*)\?", text)
    assert found, text
    return said(lies(the(scene, found[1]), found[2], the(scene, found[3])))


def form(question: Question) -> str:
    return next((word for word in ("larger", "more") if word in question.text.split()), question.kind)


@given(NUMBERS, LEVELS, st.integers(0, 5), st.sampled_from([1, 3, 8, 100]))
def test_answers_are_what_the_questions_ask(scene_number: int, level: str, seed: int, wanted: int) -> None:
    scene = make_scene(scene_number, 1, DIFFICULTIES[level])
    asked = questions(scene, wanted, seed)
    assert len({each.text for each in asked}) == len(asked) and min(wanted, 8) <= len(asked) <= wanted
    for each in asked:
        assert each.answer == answer(scene, each.text), each.text
        assert each.answers == (each.answer,) * 10 and each.answer in ANSWERS and each.kind in KINDS
        assert "plain" not in each.text and set(each.things) <= set(range(len(scene.things)))
        names = [re.split(rf" {WAY}| larger", name)[0] for name in each.text.strip("?").split("the ")[1:]]
        assert {scene.things.index(the(scene, name)) for name in names if name != "thing"} <= set(each.things)


@given(NUMBERS, LEVELS, st.integers(1, 12))
def test_few_questions_are_the_first_of_many_whatever_people_answer(number_: int, level: str, few: int) -> None:
    scene = make_scene(number_, 1, DIFFICULTIES[level])
    many = questions(scene, 40, 3, disagreement=0.4)
    assert questions(scene, few, 3, disagreement=0.4) == many[:few]
    assert [q.text for q in questions(scene, 40, 3)] == [q.text for q in many]
    assert questions(scene, 0) == ()


@pytest.mark.parametrize(("level", "wanted"), list(product(sorted(DIFFICULTIES), [1, 5, 40])))
def test_yes_and_no_are_balanced_in_every_form_and_every_kind_occurs(level: str, wanted: int) -> None:
    said: dict[str, Counter[str]] = defaultdict(Counter)
    kinds: Counter[str] = Counter()
    for n in range({1: 3000, 5: 1500, 40: 500}[wanted]):
        for each in questions(make_scene(n, 2, DIFFICULTIES[level]), wanted):
            kinds[each.kind] += 1
            if each.answer in ("yes", "no"):
                said[form(each)][each.answer] += 1
    assert set(kinds) == set(KINDS) and min(kinds.values()) > 0.05 * kinds.total()
    assert set(said) == {"existence", "relation", "larger", "more"}
    for name, counts in said.items():
        # Four standard deviations of a fair coin; pairs of one scene's answers are not quite independent throws.
        assert abs(counts["yes"] / counts.total() - 0.5) < 2 / counts.total() ** 0.5, (name, counts)


@pytest.mark.parametrize("level", sorted(DIFFICULTIES))
def test_the_words_alone_do_not_tell_yes_from_no(level: str) -> None:
    """A naive Bayes over words and neighbouring words, of 2,000 scenes' questions, on those of 700 others."""

    def features(text: str) -> set[str]:
        words = text.strip("?").split()
        return {*words, *map(" ".join, pairwise(words))}

    counts = {"yes": Counter[str](), "no": Counter[str]()}
    right = total = 0
    for n in range(2700):
        for each in questions(make_scene(n, 4, DIFFICULTIES[level]), 5):
            if each.answer not in counts:
                continue
            if n < 2000:
                counts[each.answer].update(features(each.text))
                continue
            odds = 1.0
            for feature in features(each.text):
                odds *= (counts["yes"][feature] + 1) / (counts["no"][feature] + 1)
            right, total = right + (each.answer == ("yes" if odds > 1 else "no")), total + 1
    assert total > 1000 and right / total < 0.56  # four standard deviations above chance


def test_no_number_is_the_answer_to_most_counts() -> None:
    for level in DIFFICULTIES:
        asked = (q for n in range(800) for q in questions(make_scene(n, 2, DIFFICULTIES[level]), 4))
        counts = Counter(q.answer for q in asked if q.kind == "count")
        assert max(counts.values()) < 0.5 * counts.total()
        assert set(counts) == {str(each) for each in range(DIFFICULTIES[level].objects[1] + 1)}


def test_colours_and_shapes_are_asked_for_evenly() -> None:
    given_: Counter[str] = Counter()
    for n in range(2000):
        given_.update(q.answer for q in questions(make_scene(n, 3, DIFFICULTIES["medium"]), 3) if q.kind == "attribute")
    for words in (tuple(COLOURS), SHAPES):
        counts = [given_[word] for word in words]
        assert min(counts) > 0.6 * sum(counts) / len(counts)


def test_disagreement_changes_some_of_the_ten_and_never_the_truth() -> None:
    others: Counter[str] = Counter()
    asked = [q for n in range(300) for q in questions(make_scene(n, 0, DIFFICULTIES["hard"]), 4, disagreement=0.3)]
    for each in asked:
        assert len(each.answers) == 10 and set(each.answers) <= set(ANSWERS)
        for said in set(each.answers) - {each.answer}:
            meant, true = words_of(said), words_of(each.answer)
            # Of the same class: both colours, both sizes, ..., or neither of them a word for a thing.
            assert [word is None for word in meant] == [word is None for word in true]
            assert (said in ("yes", "no"), said.isdigit()) == (each.answer in ("yes", "no"), each.answer.isdigit())
            assert said not in ANSWERS[-5:] or meant == true  # the synonyms
            others["synonym" if meant == true and any(true) else "other"] += 1
    share = sum(said != q.answer for q in asked for said in q.answers) / (10 * len(asked))
    assert 0.28 < share < 0.32 and others["synonym"] > 50 and others["other"] > 50
    assert all(q.answer not in q.answers for q in questions(make_scene(5, 0, DIFFICULTIES["hard"]), 9, 0, 1.0))


def test_the_same_questions_on_every_machine() -> None:
    scene = make_scene(9, 0, DIFFICULTIES["hard"])
    assert questions(scene, 5, 1) == questions(scene, 5, 1) != questions(scene, 5, 2)
    assert [q.text for q in questions(scene, 3, 1)] == [
        "what shape is the checked shape?",
        "how many hearts are there?",
        "is the cross larger than the ring?",
    ]


def test_wrong_arguments_are_named() -> None:
    scene = make_scene(0, 0, DIFFICULTIES["easy"])
    with pytest.raises(ValueError, match=r"disagreement is 1\.5; expected a chance between 0 and 1"):
        questions(scene, 1, disagreement=1.5)
    with pytest.raises(ValueError, match="-1 questions are asked for; expected 0 or more"):
        questions(scene, -1)
