"""One of four is right, by a reading of question, answers and reasons against the graph."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from multiway.data.scenes.choice import KINDS, OUTLINES, Choice, choices
from multiway.data.scenes.graph import DIFFICULTIES, SHAPES, Scene, Thing, make_scene
from multiway.data.scenes.words import words_of

NUMBERS, LEVELS = st.integers(0, 10**6), st.sampled_from(sorted(DIFFICULTIES))
COUNTS = {"none": 0, "no": 0, "one": 1, "two": 2, "three": 3, "four": 4}
SIZES = ("small", "medium", "large")


def the(scene: Scene, name: str) -> Thing:
    """The one thing that a name means."""
    fit = [thing for thing in scene.things if words_of(name).fit(thing.words)]
    assert len(fit) == 1, name
    return fit[0]


def right_answers(scene: Scene, each: Choice) -> list[str]:
    question = each.question.rstrip("?")
    if each.kind == "larger":
        one, other = question.split("larger, the ")[1].split(" or the ")
        a, b = (SIZES.index(the(scene, name).size) for name in (one, other))
        return [f"the {one}" if a > b else f"the {other}" if b > a else "they are of one size"]
    if each.kind == "where":
        other, one = question.removeprefix("seen from the ").split(", where is the ")
        a, b = the(scene, one), the(scene, other)
        horizontal = abs(a.x - b.x) > abs(a.y - b.y)
        ways = (
            ("to its left" if a.x < b.x else "to its right")
            if horizontal
            else ("above it" if a.y < b.y else "below it")
        )
        return [ways]
    if each.kind == "shape":
        return [f"a {the(scene, question.removeprefix('what is the ').removesuffix(' shape')).shape}"]
    colour = question.removeprefix("how many shapes are not ")
    wanted = sum(thing.colour != colour for thing in scene.things)
    return [answer for answer in each.answers if COUNTS[answer] == wanted]


def true_reasons(scene: Scene, each: Choice) -> list[str]:
    def holds(reason: str) -> bool:
        if each.kind == "larger":
            return all(
                the(scene, half.split(" is ")[0].strip().removeprefix("the ")).size == half.split(" is ")[1]
                for half in reason.split(" and ")
            )
        if each.kind == "where":
            for way in (" left of ", " right of ", " above ", " below "):
                if f" is{way}the " in reason:
                    a, b = (the(scene, name.removeprefix("the ")) for name in reason.split(f" is{way}"))
                    dx, dy = a.x - b.x, a.y - b.y
                    if abs(dx) > abs(dy):
                        return way == (" left of " if dx < 0 else " right of ")
                    return way == (" above " if dy < 0 else " below ")
        if each.kind == "shape":
            return OUTLINES[scene.things[each.things[0]].shape] == reason
        words = reason.replace(",", "").split()
        colour = words[-1]
        return COUNTS[words[2]] == len(scene.things) and COUNTS[words[4]] == sum(
            thing.colour == colour for thing in scene.things
        )

    return [reason for reason in each.reasons if holds(reason)]


@given(NUMBERS, LEVELS, st.integers(0, 3))
def test_one_answer_and_one_reason_are_right(number: int, level: str, seed: int) -> None:
    scene = make_scene(number, 4, DIFFICULTIES[level])
    found = choices(scene, seed)
    assert [each.kind for each in found] == sorted({each.kind for each in found}, key=KINDS.index)
    for each in found:
        assert len(set(each.answers)) == len(each.answers) == 4 and len(set(each.reasons)) == len(each.reasons) == 4
        assert [each.answers[each.answer]] == right_answers(scene, each), each
        assert [each.reasons[each.reason]] == true_reasons(scene, each), each


def test_right_places_are_even_and_every_scene_has_a_choice() -> None:
    places: dict[str, Counter[int]] = {kind: Counter() for kind in KINDS}
    reasons: Counter[int] = Counter()
    for number in range(600):
        found = choices(make_scene(number, 0, DIFFICULTIES["medium"]))
        assert any(each.kind == "others" for each in found)
        for each in found:
            places[each.kind][each.answer] += 1
            reasons[each.reason] += 1
    for counts in places.values():
        total = sum(counts.values())
        assert total > 150 and all(0.17 < counts[place] / total < 0.33 for place in range(4))
    assert all(0.21 < reasons[place] / reasons.total() < 0.29 for place in range(4))


def test_no_two_shapes_have_one_outline() -> None:
    assert set(OUTLINES) == set(SHAPES) and len(set(OUTLINES.values())) == len(SHAPES)
