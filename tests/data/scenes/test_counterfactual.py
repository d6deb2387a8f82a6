"""One fact changes, and only one; each caption is true of its own picture and false of the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.scenes.counterfactual import changes, counterfactuals, has_room
from multiway.data.scenes.graph import DIFFICULTIES, Scene, make_scene, relation
from multiway.data.scenes.parse import parse

NUMBERS, LEVELS = st.integers(0, 10**6), st.sampled_from(sorted(DIFFICULTIES))


def relations(scene: Scene) -> dict[tuple[int, int], str | None]:
    count = len(scene.things)
    return {(a, b): relation(scene.things[a], scene.things[b]) for a in range(count) for b in range(a)}


@given(NUMBERS, LEVELS, st.integers(0, 5))
def test_exactly_one_fact_differs(number: int, level: str, seed: int) -> None:
    scene = make_scene(number, 1, DIFFICULTIES[level])
    for each in counterfactuals(scene, DIFFICULTIES[level], seed):
        before, after = each.scene, each.changed
        assert before == scene and has_room(after) and len({t.words for t in after.things}) == len(after.things)
        assert (before.background, before.second) == (after.background, after.second)
        words = [
            sum(a != b for a, b in zip(x.words, y.words, strict=True))
            for x, y in zip(before.things, after.things, strict=False)
        ]
        moved = [pair for pair, name in relations(before).items() if relations(after).get(pair) != name]
        if each.kind == "attribute":
            assert len(before.things) == len(after.things) and sum(words) == 1 and not moved
        elif each.kind == "relation":
            assert len(before.things) == len(after.things) and sum(words) == 0 and len(moved) == 1
        else:
            assert abs(len(before.things) - len(after.things)) == 1
            fewer, more = sorted((before.things, after.things), key=len)
            assert set(fewer) < set(more)
        for caption, here, there in ((each.caption, before, after), (each.changed_caption, after, before)):
            assert parse(caption).holds(here) and not parse(caption).holds(there)


def test_kinds_that_can_be_are_there() -> None:
    kinds = {level: [0, 0, 0] for level in DIFFICULTIES}
    for level, counts in kinds.items():
        for number in range(100):
            scene = make_scene(number, 2, DIFFICULTIES[level])
            found = {each.kind for each in counterfactuals(scene, DIFFICULTIES[level])}
            for place, kind in enumerate(("attribute", "relation", "count")):
                counts[place] += kind in found
            assert "relation" not in found or len(scene.things) > 1
    assert all(counts[0] >= 97 and counts[2] >= 90 for counts in kinds.values())
    assert kinds["easy"][1] > 30 and kinds["medium"][1] > 30 and kinds["hard"][1] > 30


def test_same_seed_same_change_and_kinds_are_named() -> None:
    scene = make_scene(5, 0, DIFFICULTIES["hard"])
    assert counterfactuals(scene, DIFFICULTIES["hard"], 3) == counterfactuals(scene, DIFFICULTIES["hard"], 3)
    with pytest.raises(ValueError, match="attribute, relation, count"):
        next(changes(scene, DIFFICULTIES["hard"], "mood"))
