"""Frames are scenes of the world, and the caption is what an onlooker would say who only sees the frames."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.scenes.counterfactual import has_room
from multiway.data.scenes.draw import draw_scenes
from multiway.data.scenes.graph import DIFFICULTIES, Scene, Thing, make_scene
from multiway.data.scenes.video import MOTIONS, make_video
from multiway.data.scenes.words import words_of

NUMBERS, LEVELS = st.integers(0, 10**6), st.sampled_from(sorted(DIFFICULTIES))


def seen(path: list[tuple[float, float]]) -> str:
    """What one thing does, from its places."""
    signs = []
    for (x, y), (nx, ny) in pairwise(path):
        if nx != x:
            signs.append("left" if nx < x else "right")
        elif ny != y:
            signs.append("up" if ny < y else "down")
    runs = [sign for i, sign in enumerate(signs) if i == 0 or sign != signs[i - 1]]
    if not runs:
        return "stays"
    return f"moves {runs[0]}" + {1: "", 2: " and back"}.get(len(runs), " to and fro")


@given(NUMBERS, LEVELS, st.integers(0, 5), st.integers(2, 12))
def test_frames_keep_the_worlds_promises(number: int, level: str, seed: int, frames: int) -> None:
    scene = make_scene(number, 0, DIFFICULTIES[level])
    video = make_video(scene, seed, frames)
    assert len(video.frames) == frames and video.frames[0] == scene
    for shot in video.frames:
        assert has_room(shot) and shot.content == scene.content
    for place, motion in enumerate(video.motions):
        path = [(shot.things[place].x, shot.things[place].y) for shot in video.frames]
        assert motion in MOTIONS
        assert seen(path) == ("stays" if motion == "is stuck" else motion)
        # Along one axis, at one speed.
        steps = {round(abs(x - nx) + abs(y - ny), 9) for (x, y), (nx, ny) in pairwise(path)} - {0.0}
        assert len(steps) <= 1 and min(len({x for x, _ in path}), len({y for _, y in path})) == 1


def test_the_caption_names_each_motion_of_a_thing_that_can_be_named() -> None:
    for number in range(200):
        scene = make_scene(number, 7, DIFFICULTIES["hard"])
        video = make_video(scene)
        told = (
            [part for chunk in video.caption.split(" and the ") for part in chunk.split(", ")] if video.caption else []
        )
        said = 0
        for part in told:
            part = "the " + part.removeprefix("the ")
            motion = next(m for m in sorted(MOTIONS, key=len, reverse=True) if part.endswith(m))
            fit = [i for i, t in enumerate(scene.things) if words_of(part.removesuffix(motion)).fit(t.words)]
            assert len(fit) == 1 and video.motions[fit[0]] == motion
            said += 1
        assert all(m == "stays" for m in video.motions) or said >= sum(m != "stays" for m in video.motions)


def test_walls_turn_things_round() -> None:
    scene = Scene((Thing("circle", "red", "small", "plain", 0.15, 0.5, 0.09),))
    found = {make_video(scene, seed, 12).motions[0] for seed in range(40)}
    assert {"stays", "moves left and back", "moves right"} <= found
    pictures = draw_scenes(make_video(scene, 1, 4).frames, 32)
    assert pictures.shape == (4, 32, 32, 3)


def test_one_frame_is_no_video() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        make_video(make_scene(0, 0, DIFFICULTIES["easy"]), frames=1)
