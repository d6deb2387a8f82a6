"""Every answer again, from the words of the question alone; and that the words alone do not give it away."""

import re
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.scenes.graph import COLOURS, DIFFICULTIES, SHAPES, Scene, Thing, make_scene
from multiway.data.scenes.questions import ANSWERS, KINDS, questions
from multiway.data.scenes.words import words_of

NUMBERS, LEVELS = st.integers(0, 10**6), st.sampled_from(sorted(DIFFICULTIES))
SIZES = ("small", "medium", "large")
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
        return said(SIZES.index(the(scene, found[1]).size) > SIZES.index(the(scene, found[2]).size))
    if found := re.fullmatch(r"are there more (.*) than (.*)\?", text):
        return said(number(scene, found[1]) > number(scene, found[2]))
    found = re.fullmatch(rf"is the (.*) {WAY} the (.*)\?", text)
    assert found, text
    return said(lies(the(scene, found[1]), found[2], the(scene, found[3])))


@given(NUMBERS, LEVELS, st.integers(0, 5))
def test_answers_are_what_the_questions_ask(scene_number: int, level: str, seed: int) -> None:
    scene = make_scene(scene_number, 1, DIFFICULTIES[level])
    asked = questions(scene, 8, seed)
    assert len({each.text for each in asked}) == len(asked) >= 3
    for each in asked:
        assert each.answer == answer(scene, each.text), each.text
        assert each.answers == (each.answer,) * 10 and each.answer in ANSWERS and each.kind in KINDS


def test_yes_and_no_are_balanced_in_every_form_and_every_kind_occurs() -> None:
    for level in ("easy", "medium", "hard"):
        said: dict[str, Counter[str]] = defaultdict(Counter)
        kinds: Counter[str] = Counter()
        for n in range(1500):
            for each in questions(make_scene(n, 2, DIFFICULTIES[level]), 5):
                kinds[each.kind] += 1
                if each.answer in ("yes", "no"):
                    form = "larger" if "larger" in each.text else "more" if "more" in each.text else each.kind
                    said[form][each.answer] += 1
        assert set(kinds) == set(KINDS) and min(kinds.values()) > 300
        assert set(said) == {"existence", "relation", "larger", "more"}
        for form, counts in said.items():
            # Four standard deviations of a fair coin.
            assert abs(counts["yes"] / counts.total() - 0.5) < 2 / counts.total() ** 0.5, (level, form, counts)


def test_colours_and_shapes_are_asked_for_evenly() -> None:
    given_: Counter[str] = Counter()
    for n in range(2000):
        given_.update(q.answer for q in questions(make_scene(n, 3, DIFFICULTIES["medium"]), 3) if q.kind == "attribute")
    for words in (tuple(COLOURS), SHAPES):
        counts = [given_[word] for word in words]
        assert min(counts) > 0.6 * sum(counts) / len(counts)


def test_disagreement_changes_some_of_the_ten_and_never_the_truth() -> None:
    others = 0
    for n in range(200):
        scene = make_scene(n, 0, DIFFICULTIES["hard"])
        for plain, told in zip(questions(scene, 4), questions(scene, 4, disagreement=0.0), strict=True):
            assert plain == told
        for each in questions(scene, 4, disagreement=0.3):
            assert each.answer == answer(scene, each.text) and len(each.answers) == 10
            assert set(each.answers) <= set(ANSWERS)
            others += sum(said != each.answer for said in each.answers)
    assert 0.27 < others / (200 * 4 * 10) < 0.33
    with pytest.raises(ValueError, match="between 0 and 1"):
        questions(make_scene(0, 0, DIFFICULTIES["easy"]), 1, disagreement=1.5)


def test_same_seed_same_questions() -> None:
    scene = make_scene(9, 0, DIFFICULTIES["hard"])
    assert questions(scene, 5, 1) == questions(scene, 5, 1) != questions(scene, 5, 2)
