"""Videos of scenes as a data set to be measured on: `scenes-video`, `scenes-video:easy,gallery=200@test`.

Each row is one scene of the world's gallery set in motion (`video.py`), with the caption that tells what moves where. Scenes of
which nothing can be named have no caption and are left out. There is no training split: nothing here learns from video.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from multiway.data.scenes.draw import draw_scenes
from multiway.data.scenes.source import SIDE, Scenes
from multiway.data.scenes.video import Video, make_video
from multiway.data.source import DataError, Row, stable_id

__all__ = ["SPLITS", "SceneVideos"]

SPLITS = ("val", "test")

_FRAMES = 8  # of every video

# Enters every fingerprint. To be raised whenever the same scene moves otherwise, or is told of otherwise.
_VERSION = 1


class SceneVideos:
    """One split of moving scenes; satisfies `Source` and `HasFrames`.

    Args:
        scenes: whose gallery is set in motion.

    Raises:
        DataError: if no caption can be written for any of them.
    """

    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    def __init__(self, scenes: Scenes) -> None:
        self.split = scenes.split
        said = scenes.name.partition(":")[2]
        self.name = "scenes-video" + (f":{said}" if said else "")
        self.fingerprint = f"{stable_id(f'{scenes.fingerprint} video {_FRAMES} {_VERSION}'):016x}"
        moved = (
            (number, make_video(scenes.scene(number), scenes.options.seed, _FRAMES)) for number in range(len(scenes))
        )
        self._videos: Sequence[tuple[int, Video]] = [(number, video) for number, video in moved if video.caption]
        self._scenes = scenes
        if not self._videos:
            raise DataError(f"{self.name}@{self.split}: no thing of these scenes can be named; take an easier world")

    @classmethod
    def open(cls, split: str = "test", options: str = "") -> SceneVideos:
        """One split, with the options of `scenes`.

        Raises:
            DataError: for another split, or options that do not exist.
        """
        if split not in SPLITS:
            raise DataError(f"scenes-video has no split {split!r}; it has {', '.join(SPLITS)}")
        return cls(Scenes.open(split, options))

    def __len__(self) -> int:
        return len(self._videos)

    def video(self, index: int) -> Video:
        """The frames of a row as scenes, and what moves in them."""
        return self._videos[index][1]

    def row(self, index: int) -> Row:
        """The caption of one video; the group is its number of things."""
        number, video = self._videos[index]
        still = self._scenes.row(number)
        where = f"{self.name}@{self.split}, {still.where.rpartition(', ')[2]}"
        image_id = stable_id(f"scenes-video {still.image_id} {_FRAMES}")
        return Row(f"{self.split}-{number}", image_id, (video.caption,), where=where, group=still.group)

    def image(self, index: int) -> Image.Image:
        """The middle frame, 128 x 128, RGB."""
        return self.frames(index, 1)[0]

    def frames(self, index: int, count: int) -> list[Image.Image]:
        """`count` frames: the middle one of each of as many equal parts; above 8 some come again.

        Raises:
            ValueError: if `count` is less than 1.
        """
        if count < 1:
            raise ValueError(f"{count} frames were asked for; expected at least 1")
        shots = self.video(index).frames
        chosen = [shots[(2 * part + 1) * len(shots) // (2 * count)] for part in range(count)]
        return [Image.fromarray(square) for square in draw_scenes(chosen, SIDE)]
