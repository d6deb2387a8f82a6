"""Noise does what it records, as often as asked, and nothing else."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.data.open import open_source
from multiway.data.scenes.graph import DIFFICULTIES, make_scene
from multiway.data.scenes.noise import KINDS, NoiseShares, junk, without_one, wrong_word
from multiway.data.scenes.parse import parse
from multiway.data.scenes.source import Scenes

ROWS = 1500


def is_caption(text):
    try:
        parse(text)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def noisy():
    return Scenes.open("train", "medium,samples=1500,attribute=0.2,missing=0.1,junk=0.1,swap=0.2")


def test_shares_are_what_was_asked(noisy):
    counts = Counter(noisy.noise(row).kind for row in range(ROWS))
    # A third of the scenes have one thing, which cannot go missing: they get a wrong word instead.
    asked = {"attribute": 0.2 + 0.1 / 3, "missing": 0.1 * 2 / 3, "junk": 0.1, "swap": 0.2, "none": 0.4}
    for kind, share in asked.items():
        assert abs(counts[kind] / ROWS - share) < 4 * (share * (1 - share) / ROWS) ** 0.5


def test_what_is_recorded_is_what_was_done(noisy):
    clean = Scenes.open("train", "medium,samples=1500")
    for row in range(400):
        noise, scene, given = noisy.noise(row), noisy.scene(row), noisy.row(row).captions
        assert scene == clean.scene(row) and noise == noisy.noise(row)
        assert parse(noise.true).holds(scene) and noise.true == clean.row(row).captions[0] and noise.given == given[0]
        if noise.kind == "none":
            assert given == clean.row(row).captions
            continue
        assert not any(is_caption(caption) and parse(caption).holds(scene) for caption in given)
        if noise.kind == "junk":
            assert not is_caption(noise.given)
            continue
        assert len(given) == 4
        told, true = parse(noise.given).things, set(scene.content)
        apart = [set(told) - true, true - set(told)]
        if noise.kind == "attribute":
            ((wrong,), (right,)) = apart
            assert sum(a != b for a, b in zip(wrong, right, strict=True)) == 1
        elif noise.kind == "missing":
            assert len(told) == len(scene.things) - 1 and not apart[0]
        else:
            assert apart[0]


def test_clean_worlds_and_galleries_stay_clean(noisy):
    assert {Scenes.open("train").noise(row).kind for row in range(100)} == {"none"}
    for split in ("val", "test"):
        gallery = Scenes.open(split, "swap=1.0,gallery=100")
        assert {gallery.noise(row).kind for row in range(100)} == {"none"}
        assert gallery.row(3) == Scenes.open(split, "gallery=100").row(3)
    assert noisy.noise(0) == open_source("scenes:medium,swap=.2,junk=.1,missing=.1,attribute=.2").noise(0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_world_of_one_kind(kind):
    world = Scenes.open("train", f"hard,samples=50,{kind}=1")
    assert {world.noise(row).kind for row in range(50)} == {kind}
    other = Scenes.open("train", f"hard,samples=50,{kind}=1,captions=all")
    assert [other.row(row) .captions for row in range(50)] == [world.row(row).captions for row in range(50)]  # fmt: skip


def test_a_swap_in_the_smallest_world_ends():
    assert Scenes.open("train", "easy,objects=1,samples=1,swap=1").noise(0).kind == "swap"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(DIFFICULTIES)), st.integers(0, 999))
def test_changed_scenes(number, level, seed):
    random = Random(seed)
    world = DIFFICULTIES[level]
    scene = make_scene(number, 0, world)
    wrong = wrong_word(scene, world, random.random)
    pairs = [(a, b) for a, b in zip(scene.things, wrong.things, strict=True) if a != b]
    assert len(pairs) == 1 and sum(a != b for a, b in zip(pairs[0][0].words, pairs[0][1].words, strict=True)) == 1
    assert len(set(wrong.content)) == len(wrong.things) and wrong.relations == scene.relations
    assert world.textures > 1 or all(thing.texture == "plain" for thing in wrong.things)
    if len(scene.things) > 1:
        less = without_one(scene, random.random)
        assert len(less.things) == len(scene.things) - 1 and set(less.things) < set(scene.things)
    assert junk(random.random) and not is_caption(junk(random.random))


def test_impossible_shares():
    assert not NoiseShares() and NoiseShares(junk=0.1)
    with pytest.raises(ValueError, match=r"share of swap is -0\.1; expected a number from 0 to 1"):
        NoiseShares(swap=-0.1)
    with pytest.raises(ValueError, match="share of junk is nan"):
        NoiseShares(junk=float("nan"))
    with pytest.raises(ValueError, match=r"missing 0\.6, swap 0\.6.* more than 1 together"):
        NoiseShares(missing=0.6, swap=0.6)
