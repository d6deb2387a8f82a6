"""Truth of a statement from its words alone, and its twin pair for which the answer is the other."""

import re

from hypothesis import given
from hypothesis import strategies as st

from multiway.data.scenes.graph import DIFFICULTIES, Scene, make_scene
from multiway.data.scenes.statements import statements

NUMBERS, LEVELS = st.integers(0, 10**6), st.sampled_from(sorted(DIFFICULTIES))
COUNTS = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4}
SINGULAR = {"crosses": "cross"}


def fitting(scene: Scene, name: str) -> int:
    """How many things of a scene have all the words of a name."""
    words = [SINGULAR.get(word, word) for word in name.split()]
    words = [word[:-1] if word.endswith("s") and word != "cross" else word for word in words]
    return sum(all(word in thing.words for word in words if word != "shape") for thing in scene.things)


def truth(text: str, left: Scene, right: Scene) -> bool:
    """The answer, read off the sentence."""
    if found := re.fullmatch(r"both pictures show an? (.*)", text):
        return min(fitting(left, found[1]), fitting(right, found[1])) >= 1
    if found := re.fullmatch(r"only one of the pictures shows an? (.*)", text):
        return sorted((fitting(left, found[1]) > 0, fitting(right, found[1]) > 0)) == [False, True]
    if found := re.fullmatch(r"neither picture shows an? (.*)", text):
        return fitting(left, found[1]) + fitting(right, found[1]) == 0
    if found := re.fullmatch(r"there are more (.*) in the left picture than in the right one", text):
        return fitting(left, found[1]) > fitting(right, found[1])
    found = re.fullmatch(r"in the two pictures together there (?:is|are) (no|one|two|three|four) (.*)", text)
    assert found, text
    return fitting(left, found[2]) + fitting(right, found[2]) == COUNTS[found[1]]


@given(NUMBERS, LEVELS, st.integers(0, 3))
def test_truth_is_what_the_words_say(number: int, level: str, seed: int) -> None:
    world = DIFFICULTIES[level]
    left, right = make_scene(number, 0, world), make_scene(number + 1, 0, world)
    found = statements(left, right, world, seed, number=3)
    assert len(found) % 2 == 0 and len({each.text for each in found}) == len(found) // 2
    for first, twin in zip(found[::2], found[1::2], strict=True):
        assert first.text == twin.text and first.group == twin.group
        assert (first.left, first.right) == (left, right)
        assert (twin.left == left) != (twin.right == right), "one of the two pictures is changed"
        for each in (first, twin):
            assert each.true == truth(each.text, each.left, each.right)
        assert first.true != twin.true


def test_true_and_false_are_balanced_among_the_pairs_given_and_the_kinds_all_occur() -> None:
    world = DIFFICULTIES["medium"]
    given, heads = [], set()
    for number in range(300):
        found = statements(make_scene(number, 0, world), make_scene(number + 900, 0, world), world, number=2)
        given += [each.true for each in found[::2]]
        heads |= {each.text.split()[0] for each in found}
    assert len(given) > 560
    assert 0.45 < sum(given) / len(given) < 0.55
    assert heads == {"both", "only", "neither", "there", "in"}
