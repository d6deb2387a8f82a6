"""The world is a function of (seed, number), and keeps the promises that words, questions and answers rest on."""

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.scenes.graph import (
    APART,
    BACKGROUNDS,
    COLOURS,
    DECIDED,
    DIFFICULTIES,
    EDGE,
    GAP,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Relation,
    Scene,
    Thing,
    make_scene,
    relation,
)  # fmt: skip

NUMBERS, SEEDS = st.integers(0, 2**41), st.integers(0, 1000)
LEVELS = st.sampled_from(sorted(DIFFICULTIES))


def a_thing(x=0.5, y=0.5, radius=0.1, shape="circle"):
    return Thing(shape, "red", "small", "plain", x, y, radius)


@given(NUMBERS, SEEDS, LEVELS)
def test_scenes_keep_their_promises(number, seed, level):
    world = DIFFICULTIES[level]
    scene = make_scene(number, seed, world)
    assert scene == make_scene(number, seed, world)
    assert world.objects[0] <= len(scene.things) <= world.objects[1]
    assert len(set(scene.content)) == len(scene.things)
    assert {scene.background, scene.second} <= set(list(BACKGROUNDS)[: world.backgrounds])
    assert world.shaded or scene.background == scene.second
    for place, thing in enumerate(scene.things):
        assert thing.shape in SHAPES and thing.colour in COLOURS
        assert thing.size in list(SIZES)[: world.sizes] and thing.texture in TEXTURES[: world.textures]
        assert SIZES[thing.size][0] <= thing.radius <= SIZES[thing.size][1]
        assert abs(thing.angle) <= world.turn
        assert min(thing.box) >= EDGE - 1e-9 and max(thing.box) <= 1 - EDGE + 1e-9
        for other in scene.things[:place]:
            assert math.dist((thing.x, thing.y), (other.x, other.y)) > thing.radius + other.radius + GAP


@given(*[st.floats(0, 1)] * 4)
def test_relations_turn_round_and_never_contradict(x, y, other_x, other_y):
    one, other = a_thing(x, y), a_thing(other_x, other_y)
    name = relation(one, other)
    assert relation(other, one) == (RELATIONS[name] if name else None)
    # The obvious twin: each relation by itself.
    dx, dy = other_x - x, other_y - y
    holds = {
        "left of": dx >= APART and dx >= DECIDED * abs(dy),
        "right of": -dx >= APART and -dx >= DECIDED * abs(dy),
        "below": -dy >= APART and -dy >= DECIDED * abs(dx),
        "above": dy >= APART and dy >= DECIDED * abs(dx),
    }
    assert [each for each, true in holds.items() if true] == ([name] if name else [])


def test_relations_of_a_scene_by_hand():
    things = (a_thing(0.2, 0.5), a_thing(0.8, 0.5, shape="star"), a_thing(0.21, 0.9, shape="ring"))
    scene = Scene(things)
    assert set(scene.relations) == {
        Relation(0, "left of", 1),
        Relation(1, "right of", 0),
        Relation(0, "above", 2),
        Relation(2, "below", 0),
    }  # 1 and 2 lie diagonally: (0.59, 0.4) apart decides nothing
    assert relation(a_thing(0.5, 0.5), a_thing(0.5 + APART / 2, 0.5)) is None  # too near


def test_sizes_have_gaps_between_them():
    spans = sorted(SIZES.values())
    assert all(high < low for (_, high), (low, _) in pairwise(spans))


@pytest.mark.parametrize("level", DIFFICULTIES)
def test_all_words_and_numbers_occur_about_equally(level):
    world = DIFFICULTIES[level]
    scenes = [make_scene(number, 0, world) for number in range(600)]
    things = [thing for scene in scenes for thing in scene.things]
    for attribute, words in (("shape", SHAPES), ("colour", tuple(COLOURS))):
        counts = Counter(getattr(thing, attribute) for thing in things)
        expected = len(things) / len(words)
        # Crowded scenes of large things are drawn anew, kin repeat: nothing is exactly even, and nothing is rare.
        assert set(counts) == set(words) and all(0.7 * expected < n < 1.3 * expected for n in counts.values())
    assert set(Counter(len(scene.things) for scene in scenes)) == set(range(world.objects[0], world.objects[1] + 1))


def test_kin_share_more_than_others():
    def kin(level):
        scenes = [make_scene(number, 0, DIFFICULTIES[level]) for number in range(400)]
        pairs = [(a, b) for scene in scenes for a, b in pairwise(scene.things)]
        return sum(a.shape == b.shape or a.colour == b.colour for a, b in pairs) / len(pairs)

    assert kin("medium") < 0.35 < 0.5 < kin("hard")  # 1 - (7/8)^2 = 0.23 by chance


def test_a_world_is_what_it_was():
    """Pictures and captions of published runs hang on these numbers."""
    scene = make_scene(5, 0, DIFFICULTIES["medium"])
    assert scene.background == "black"
    assert [thing.words for thing in scene.things] == [
        ("medium", "blue", "striped", "diamond"),
        ("medium", "red", "striped", "cross"),
        ("small", "red", "dotted", "triangle"),
    ]
    assert (scene.things[0].x, scene.things[2].angle) == (0.22902259961701826, -0.19927423666082056)
