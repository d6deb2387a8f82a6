"""Videos of scenes: each is its scene set in motion, told of by its caption; measured on, not learnt from."""

import numpy as np
import pytest

from multiway.data.annotated.msrvtt import HasFrames
from multiway.data.open import open_source, splits_of
from multiway.data.scenes.clips import SceneVideos
from multiway.data.scenes.source import Scenes
from multiway.data.scenes.video import make_video
from multiway.data.source import DataError, Source


def test_a_row_is_a_scene_in_motion() -> None:
    videos, scenes = SceneVideos.open("val", "easy,gallery=12"), Scenes.open("val", "easy,gallery=12")
    assert isinstance(videos, Source) and isinstance(videos, HasFrames)
    assert 6 <= len(videos) <= 12
    for index in range(len(videos)):
        row = videos.row(index)
        number = int(row.key.partition("-")[2])
        assert row.captions == (make_video(scenes.scene(number)).caption,) and row.captions[0]
        first, *_, last = videos.frames(index, 8)
        assert np.array_equal(np.asarray(first), np.asarray(scenes.image(number)))
        moves = any(word in row.captions[0] for word in ("left", "right", "up", "down"))
        assert np.array_equal(np.asarray(first), np.asarray(last)) <= (
            not moves or "fro" in row.captions[0] or "back" in row.captions[0]
        )
    assert len({videos.row(i).image_id for i in range(len(videos))}) == len(videos)


def test_frames_are_spread_evenly() -> None:
    videos = SceneVideos.open("val", "easy,gallery=4")
    every = [np.asarray(frame) for frame in videos.frames(0, 8)]
    for count, places in ((1, [4]), (2, [2, 6]), (4, [1, 3, 5, 7]), (16, [place // 2 for place in range(16)])):
        chosen = videos.frames(0, count)
        assert all(np.array_equal(np.asarray(frame), every[place]) for frame, place in zip(chosen, places, strict=True))
    assert np.array_equal(np.asarray(videos.image(0)), every[4])
    with pytest.raises(ValueError, match="0 frames"):
        videos.frames(0, 0)


def test_opened_by_name() -> None:
    videos = open_source("scenes-video:easy,gallery=5@val")
    assert videos.name == "scenes-video:easy,gallery=5" and videos.split == "val"
    assert videos.fingerprint == open_source("scenes-video:easy,gallery=5@val").fingerprint
    assert videos.fingerprint != open_source("scenes-video:easy,gallery=6@val").fingerprint
    assert splits_of("scenes-video") == ("val", "test")
    with pytest.raises(DataError, match="'train'"):
        open_source("scenes-video@train")
    with pytest.raises(DataError, match="no split 'train'; it has val, test"):
        SceneVideos.open("train")
