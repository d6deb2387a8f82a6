"""Pictures against a slow twin that asks of 64 points in every pixel what lies there."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.data.scenes.draw import TONES, draw_scenes, masks
from multiway.data.scenes.graph import (
    BACKGROUNDS,
    COLOURS,
    DIFFICULTIES,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
    make_scene,
)

FINE = 8  # points along a pixel

HARD = [make_scene(number, 0, DIFFICULTIES["hard"]) for number in range(60)]


def a_thing(shape="circle", texture="plain", size="large", colour="blue", x=0.5, y=0.5, angle=0.0):
    return Thing(shape, colour, size, texture, x, y, sum(SIZES[size]) / 2, angle)


def polygon(*corners):
    """Even-odd rule, corner by corner."""

    def inside(u, v):
        crossings = np.zeros(u.shape, bool)
        for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
            between = (y0 > v) != (y1 > v)
            with np.errstate(divide="ignore", invalid="ignore"):
                crossings ^= between & (u < (x1 - x0) * (v - y0) / (y1 - y0) + x0)
        return crossings

    return inside


def around(count, *radii):
    """Corners that share the circle evenly, from up, with these radii by turns."""
    turns = [2 * math.pi * n / count for n in range(count)]
    return [(radii[n % len(radii)] * math.sin(t), -radii[n % len(radii)] * math.cos(t)) for n, t in enumerate(turns)]


def disc(radius, x=0.0, y=0.0):
    return lambda u, v: (u - x) ** 2 + (v - y) ** 2 < radius**2


def heart(u, v):
    half, lower = 0.5605, 0.37 * 0.5605
    corner, middle = half * math.sqrt(2), half / math.sqrt(2)
    v = v - lower
    square = polygon((0, -corner), (corner, 0), (0, corner), (-corner, 0))
    return square(u, v) | disc(half, middle, -middle)(u, v) | disc(half, -middle, -middle)(u, v)


A, W = math.sqrt(1 - 0.09), 0.3
OBVIOUS = {
    "circle": disc(1),
    "square": polygon(*[(u * math.sqrt(0.5), v * math.sqrt(0.5)) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]),
    "triangle": polygon(*around(3, 1.0)),
    "star": polygon(*around(10, 1.0, 0.45)),
    "heart": heart,
    "cross": polygon(
        (-W, -A), (W, -A), (W, -W), (A, -W), (A, W), (W, W), (W, A), (-W, A), (-W, W), (-A, W), (-A, -W), (-W, -W)
    ),
    "ring": lambda u, v: disc(1)(u, v) & ~disc(0.55)(u, v),
    "diamond": polygon((0, -1), (0.64, 0), (0, 1), (-0.64, 0)),
}  # fmt: skip


def in_texture(texture, u, v):
    if texture == "striped":
        return np.floor(v / 0.28 + 0.5) % 2 == 0
    if texture == "dotted":
        return (u - 0.6 * np.round(u / 0.6)) ** 2 + (v - 0.6 * np.round(v / 0.6)) ** 2 < 0.19**2
    if texture == "checked":
        return np.floor(u / 0.4) % 2 != np.floor(v / 0.4) % 2
    return np.zeros(u.shape, bool)


def points(side):
    """(side * FINE,) places of the points along the picture."""
    return (np.arange(side * FINE) + 0.5) / (side * FINE)


def averaged(values, side):
    return values.reshape(side, FINE, side, FINE, *values.shape[2:]).mean((1, 3))


def slow_inside(thing, side):
    """(side FINE, side FINE) whether each point is in the thing, and its own coordinates."""
    x, y = np.meshgrid(points(side), points(side))
    dx, dy = (x - thing.x) / thing.radius, (y - thing.y) / thing.radius
    turn = np.array([[math.cos(thing.angle), math.sin(thing.angle)], [-math.sin(thing.angle), math.cos(thing.angle)]])
    u, v = np.einsum("ij,jyx->iyx", turn, np.stack([dx, dy]))
    return OBVIOUS[thing.shape](u, v), u, v


def slow_picture(scene, side):
    depth = points(side)[:, None, None]
    first, second = (np.array(BACKGROUNDS[name], float) for name in (scene.background, scene.second))
    picture = np.broadcast_to(first + depth * (second - first), (side * FINE, side * FINE, 3)).copy()
    for thing in scene.things:
        inside, u, v = slow_inside(thing, side)
        tone = in_texture(thing.texture, u, v)[..., None]
        picture[inside] = np.where(tone, TONES[thing.colour], COLOURS[thing.colour])[inside]
    return np.rint(averaged(picture, side))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("angle", [0.0, -0.37])
def test_masks_cover_what_points_say(shape, size, angle):
    thing = a_thing(shape, size=size, x=0.431, y=0.522, angle=angle)
    covered = masks(Scene((thing,)), 64)[0]
    slow = averaged(slow_inside(thing, 64)[0].astype(float), 64)
    assert covered.dtype == np.float32 and covered.min() >= 0 and covered.max() <= 1
    # Corners are approximate: a few pixels may be off by a fifth, the area by half a per cent and a pixel.
    assert np.abs(covered - slow).max() < 0.2
    assert abs(covered.sum() - slow.sum()) < 0.005 * slow.sum() + 1


@pytest.mark.parametrize("place", range(0, 60, 4))
def test_pictures_are_what_points_say(place):
    fast, slow = draw_scenes([HARD[place]], 64)[0].astype(float), slow_picture(HARD[place], 64)
    error = np.abs(fast - slow)
    assert error.mean() < 0.25 and np.quantile(error, 0.999) < 24 and error.max() < 60


@pytest.mark.parametrize("side", [32, 64])
def test_twice_the_side_averages_to_the_same_picture(side):
    scenes = HARD[:24]
    small, large = draw_scenes(scenes, side).astype(float), draw_scenes(scenes, 2 * side).astype(float)
    halved = large.reshape(len(scenes), side, 2, side, 2, 3).mean((2, 4))
    error = np.abs(small - halved)
    assert error.mean() < 0.5 and np.quantile(error, 0.999) < 30 and error.max() < 70


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=20), st.sampled_from([5, 24, 64]))
def test_a_picture_is_the_same_in_any_company(places, side):
    together = draw_scenes([HARD[place] for place in places], side)
    for place, picture in zip(places, together, strict=True):
        assert np.array_equal(picture, draw_scenes([HARD[place]], side)[0])


def test_things_alike_in_one_picture_are_all_drawn():
    """Same shape, same size: they would be one group, and their windows overlap."""
    things = tuple(
        a_thing("ring", size="small", colour=c, x=x) for c, x in (("red", 0.3), ("blue", 0.51), ("green", 0.72))
    )
    alone = [draw_scenes([Scene((thing,))], 16)[0].astype(int) for thing in things]
    together = draw_scenes([Scene(things)], 16)[0].astype(int)
    for thing, picture in zip(things, alone, strict=True):
        own = masks(Scene((thing,)), 16)[0] > 0
        others = sum(masks(Scene((other,)), 16)[0] for other in things if other is not thing) > 0
        assert own.any() and np.array_equal(together[own & ~others], picture[own & ~others])


def test_plain_things_on_even_ground_follow_from_their_masks():
    scene = Scene(
        (a_thing("star", x=0.3, y=0.3), a_thing("heart", colour="red", x=0.7, y=0.7, angle=0.3)), "cream", "cream"
    )
    covered = masks(scene, 48)
    expected = np.broadcast_to(np.array(BACKGROUNDS["cream"], float), (48, 48, 3))
    for thing, mask in zip(scene.things, covered, strict=True):
        expected = expected + mask[..., None] * (np.array(COLOURS[thing.colour]) - expected)
    assert np.abs(draw_scenes([scene], 48)[0] - expected).max() <= 1
    assert masks(scene, 48).shape == (2, 48, 48)


def test_background_shades_from_top_to_bottom():
    scene = Scene((a_thing(size="small"),), "white", "black")
    picture = draw_scenes([scene], 64)[0].astype(int)
    column = picture[:, 0, 0]
    assert (np.diff(column) <= 0).all() and column[0] > 250 and column[-1] < 30
    assert (picture[:, 0] == picture[:, -1]).all()


@pytest.mark.parametrize("texture", TEXTURES[1:])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["medium", "large"])
def test_textures_can_be_seen_at_64_pixels(shape, texture, size):
    for colour in COLOURS:
        thing = a_thing(shape, texture, size, colour, x=0.51, y=0.47, angle=0.2)
        scene = Scene((thing,))
        inside = draw_scenes([scene], 64)[0][masks(scene, 64)[0] > 0.99].astype(float)
        plain = np.array(COLOURS[colour], float)
        strength = (
            (inside - plain) @ (np.array(TONES[colour]) - plain) / np.square(np.array(TONES[colour]) - plain).sum()
        )
        assert np.quantile(strength, 0.97) > 0.5 and np.quantile(strength, 0.1) < 0.2


def test_stripes_turn_with_the_thing():
    level, upright = (a_thing("circle", "striped", angle=angle) for angle in (0.0, math.pi / 2))
    one, other = (draw_scenes([Scene((thing,))], 65)[0].astype(int) for thing in (level, upright))
    assert np.abs(one - other.transpose(1, 0, 2)).max() <= 2 < np.abs(one - other).max()


def test_a_tone_is_still_its_colour():
    """Half colour, half tone, as a striped thing looks from afar, is nearest to its own colour's word."""
    for name, colour in COLOURS.items():
        mixed = (np.array(colour) + TONES[name]) / 2
        distance = {other: np.abs(mixed - value).sum() for other, value in COLOURS.items()}
        assert min(distance, key=distance.__getitem__) == name
        assert np.abs(np.array(colour) - TONES[name]).sum() > 150  # and it can be told from it


def test_things_beyond_the_edge_are_cut():
    thing = a_thing("square", x=0.0, y=1.02)
    picture, covered = draw_scenes([Scene((thing,))], 40)[0], masks(Scene((thing,)), 40)[0]
    slow = averaged(slow_inside(thing, 40)[0].astype(float), 40)
    assert np.abs(covered - slow).max() < 0.2 and covered.sum() > 0
    assert (picture[:20] == 255).all() and tuple(picture[-1, 0]) == COLOURS["blue"]
    gone = replace(thing, x=-2.0)
    assert (draw_scenes([Scene((gone,))], 40) == 255).all() and not masks(Scene((gone,)), 40).any()


def test_shapes_and_bad_sides():
    assert draw_scenes([], 8).shape == (0, 8, 8, 3)
    assert draw_scenes(HARD[:3], 1).shape == (3, 1, 1, 3) and draw_scenes(HARD[:3], 7).dtype == np.uint8
    with pytest.raises(ValueError, match="at least 1 pixel; given 0"):
        draw_scenes(HARD[:1], 0)
