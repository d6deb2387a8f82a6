"""MSR-VTT: videos with twenty captions each, as frames in a folder a video.

Xu et al., MSR-VTT: A Large Video Description Dataset for Bridging Video and Language, CVPR 2016.

    train_val_videodatainfo.json, test_videodatainfo.json, or both in MSRVTT_data.json
                               {"videos": [{"video_id": "video0", "split": "train"}], "sentences": [{"video_id", "caption"}]}
    MSRVTT_JSFUSION_test.csv   key,vid_key,video_id,sentence: the 1,000 pairs that papers call 1k-A
    MSRVTT_train.9k.csv        video_id: the 9,000 videos that go with them
    frames/video0/0001.jpg, ...

Videos are not decoded here; `ffmpeg -i video0.mp4 -vf fps=2 frames/video0/%04d.jpg` lays them out.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from multiway.data.annotated.captioned import Captioned, CaptionFiles, gather_captions
from multiway.data.annotated.files import FolderPictures, Published, one_of_splits
from multiway.data.annotated.layout import find_folder, list_in
from multiway.data.annotated.records import Record, find_file, read_json
from multiway.data.decode import decode
from multiway.data.folder import PICTURE_SUFFIXES
from multiway.data.rejected import Rejected, clean_captions
from multiway.data.source import BadRow, Row, stable_id
from multiway.data.table import Table, WrongWidth

__all__ = ["FILES", "SPLITS", "HasFrames", "VideoFiles", "open_msrvtt"]

SPLITS = {"train": 6_513, "val": 497, "test": 2_990, "train9k": 9_000, "1kA": 1_000}
"""Split -> videos that were published. The first three are the data set's own; `train9k` and `1kA` are Yu et al.'s (JSFusion)."""

_IN_FILE = {"train": "train", "val": "validate", "test": "test"}
FILES: dict[str, tuple[str, ...]] = {
    "train": ("train_val_videodatainfo.json", "MSRVTT_data.json"),
    "val": ("train_val_videodatainfo.json", "MSRVTT_data.json"),
    "test": ("test_videodatainfo.json", "MSRVTT_data.json"),
    "train9k": ("MSRVTT_data.json",),
}
"""Split -> where its videos and captions may lie, within the folder."""
_LISTS = {"train9k": "MSRVTT_train.9k.csv", "1kA": "MSRVTT_JSFUSION_test.csv"}
_REMEDY = "MSRVTT.zip and msrvtt_data.zip of github.com/ArrowLuo/CLIP4Clip have it"


@runtime_checkable
class HasFrames(Protocol):
    """A source whose pictures are videos."""

    def frames(self, index: int, count: int) -> list[Image.Image]:
        """So many pictures of a video, evenly spread over it, in their order.

        Raises:
            BadRow: if one cannot be decoded.
        """
        ...


@dataclass
class VideoFiles(CaptionFiles):
    """One split of captioned videos; satisfies `Source`, `HasFrames` and `HasNotes`. Its picture of a row is the middle frame.

    Attributes:
        clips: the frames of each row, as paths within the folder, in their order.
    """

    clips: Sequence[tuple[str, ...]] = ()

    def frames(self, index: int, count: int) -> list[Image.Image]:
        """`count` frames: the middle one of each of as many equal parts; a video of fewer repeats some.

        Raises:
            BadRow: if one cannot be decoded.
            ValueError: if `count` is less than 1.
        """
        if count < 1:
            raise ValueError(f"{count} frames were asked for; expected at least 1")
        clip = self.clips[index]
        chosen = [clip[(2 * part + 1) * len(clip) // (2 * count)] for part in range(count)]
        return [decode(self.root / file, self.rows[index].where) for file in chosen]


def open_msrvtt(root: Path, split: str = "test", images: Path | None = None) -> VideoFiles:
    """One split of MSR-VTT.

    Args:
        root: folder with the annotation files.
        split: of `SPLITS`.
        images: folder with a folder of frames for each video; by default `frames/` in `root`, or `root`.

    Raises:
        DataError: if files are missing or not as published, or too many videos cannot be used.
    """
    published = one_of_splits("msrvtt", split, SPLITS)
    folder = images or find_folder(root, ("frames", "images", ""), "frames", _REMEDY)
    frames = _Frames(folder)
    clips: dict[str, tuple[str, ...]] = {}

    def make(record: Record) -> Captioned:
        video = record.name("video_id")
        if split in _IN_FILE:
            record.one_of("split", tuple(_IN_FILE.values()))
        if not re.fullmatch(r"\w[\w.-]*", video):
            raise BadRow(f"`video_id` is {video!r:.60}; expected a name such as video0, correct the row")
        partly: list[Rejected] = []
        captions = clean_captions(record.get("captions"), record.where, partly)
        clip = frames.of(video)
        clips.setdefault(video, clip)
        row = Row(video, stable_id(video), captions, where=record.where)
        return Captioned(row, frames.number(clip[len(clip) // 2]), tuple(partly))

    orphans: list[Rejected] = []
    records = _listed(root, split, orphans) if split in _LISTS else _own(root, split, orphans)
    name, size = f"msrvtt:{root}", Published(published, "videos")
    found = gather_captions(name, split, records, make, frames, published=size, orphans=orphans)
    return VideoFiles(
        name, split, found.rows, found.root, found.files, rejected=found.rejected, notes=found.notes,
        clips=[clips[row.key] for row in found.rows],
    )  # fmt: skip


def _own(root: Path, split: str, orphans: list[Rejected]) -> Iterator[Record]:
    """Videos of one of the data set's own splits, with all their captions."""
    path = find_file(root, FILES[split], f"videos of MSR-VTT's {split}", _REMEDY)
    data = read_json(path, dict)
    said = _captions(data, path, orphans)
    for number, value in enumerate(list_in(data, "videos", path), 1):
        given = value.get("split") if isinstance(value, dict) else None
        # One whose split cannot be told may be of this split, so it counts here.
        if given not in _IN_FILE.values() or given == _IN_FILE[split]:
            values = (
                {**value, "captions": said.get(str(value.get("video_id")), [])} if isinstance(value, dict) else value
            )
            yield Record(f"{path.name}, video {number}", values)


def _listed(root: Path, split: str, orphans: list[Rejected]) -> Iterator[Record]:
    """Videos that a table lists: with a sentence each, or with all their captions."""
    path = find_file(root, (_LISTS[split],), f"list of MSR-VTT's {split}", _REMEDY)
    said: dict[str, list[Any]] = {}
    if split != "1kA":
        source = find_file(root, FILES[split], "captions of MSR-VTT", _REMEDY)
        said = _captions(read_json(source, dict), source, orphans)
    for record in Table(path).records(()):
        if isinstance(record.values, WrongWidth):
            yield Record(record.where, f"{record.values.found} columns, the header {record.values.expected}")
            continue
        video = record.values.get("video_id")
        captions = record.values.get("sentence") if split == "1kA" else said.get(str(video), [])
        yield Record(record.where, {"video_id": video, "captions": captions})


def _captions(data: dict[str, Any], path: Path, orphans: list[Rejected]) -> dict[str, list[Any]]:
    """All sentences by video; those that name none are noted in `orphans`."""
    videos = {str(each.get("video_id")) for each in list_in(data, "videos", path) if isinstance(each, dict)}
    said: dict[str, list[Any]] = defaultdict(list)
    for number, value in enumerate(list_in(data, "sentences", path), 1):
        record = Record(f"{path.name}, sentence {number}", value)
        try:
            video = record.name("video_id")
            if video not in videos:
                raise BadRow(f"its video_id {video!r:.40} is none of the file's videos; remove it")
        except BadRow as error:
            orphans.append(Rejected(record.where, str(error)))
            continue
        said[video].append(record.get("caption"))
    return said


class _Frames(FolderPictures):
    """Frames, in a folder for each video."""

    def of(self, video: str) -> tuple[str, ...]:
        """The frames of a video in the order of the numbers in their names.

        Raises:
            BadRow: if there are none.
        """
        try:
            with os.scandir(self.root / video) as entries:
                names = [each.name for each in entries if each.name.lower().endswith(PICTURE_SUFFIXES)]
        except OSError as error:
            raise BadRow(
                f"there is no folder {video}/ of frames in {self.root}; take frames from the video, or correct --images"
            ) from error
        if not names:
            raise BadRow(f"the folder {video}/ in {self.root} holds no frames; take them from the video again")
        return tuple(f"{video}/{name}" for name in sorted(names, key=_in_order))


def _in_order(name: str) -> tuple[tuple[int, str], ...]:
    """`frame2` before `frame10`."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"[0-9]+|[^0-9]+", name))
