"""Pictures that a data set publishes as bytes, one after another: CIFAR-10, CIFAR-100, STL-10.

    cifar10/cifar-10-batches-bin/data_batch_1.bin ... data_batch_5.bin, test_batch.bin, batches.meta.txt
    cifar100/cifar-100-binary/train.bin, test.bin, fine_label_names.txt
    stl10/stl10_binary/train_X.bin, train_y.bin, test_X.bin, test_y.bin, unlabeled_X.bin, class_names.txt

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009: each record of CIFAR is its labels, a byte each, and 3,072
bytes of 32 x 32 pixels, the red ones first, row by row. Coates, Ng, Lee, An Analysis of Single-Layer Networks in Unsupervised Feature
Learning, AISTATS 2011: STL-10's pictures are 96 x 96, 27,648 bytes each, column by column, labels in a file beside them, from 1. The
"python version" of CIFAR is pickled, which can run any program, and is not read; the binary version has the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from multiway.data.annotated.layout import read_lines
from multiway.data.annotated.records import listed
from multiway.data.source import DataError, Row, stable_id

__all__ = ["PICTURE_SETS", "BinaryPictures", "PictureSet", "open_picture_set", "picture_splits_there"]

_TEMPLATES = ("a photo of a {}.", "a blurry photo of a {}.", "{}")


@dataclass(frozen=True)
class Layout:
    """How a set's files are made.

    Attributes:
        folders: where they may lie.
        files: split -> files, in order.
        names: file of the classes' names, a line each, in order.
        side: of the pictures.
        labels: bytes of labels before each picture, of which the last counts; 0 where they have a file of their own.
        counts: split -> pictures that were published.
        upright: whether pixels are stored row by row; else column by column.
        get: where it is to be had.
    """

    folders: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    names: str
    side: int
    labels: int
    counts: dict[str, int]
    upright: bool
    get: str


_CIFAR10 = Layout(
    ("cifar-10-batches-bin", ""),
    {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
    "batches.meta.txt", 32, 1, {"train": 50_000, "test": 10_000}, True, "cifar-10-binary.tar.gz of its home page",
)  # fmt: skip
_CIFAR100 = Layout(
    ("cifar-100-binary", ""), {"train": ("train.bin",), "test": ("test.bin",)},
    "fine_label_names.txt", 32, 2, {"train": 50_000, "test": 10_000}, True, "cifar-100-binary.tar.gz of its home page",
)  # fmt: skip
_STL10 = Layout(
    ("stl10_binary", ""), {"train": ("train_X.bin",), "test": ("test_X.bin",), "unlabeled": ("unlabeled_X.bin",)},
    "class_names.txt", 96, 0, {"train": 5_000, "test": 8_000, "unlabeled": 100_000}, False, "stl10_binary.tar.gz of its home page",
)  # fmt: skip


class BinaryPictures:
    """One split; satisfies `Source` and `HasNotes`. The pixels stay in the file.

    Attributes:
        labels: (N,) int64; -1 where they have none.
        notes: that this is a part of what was published, if it is.
    """

    templates: tuple[str, ...] = _TEMPLATES

    def __init__(
        self, name: str, split: str, classes: tuple[str, ...], parts: Sequence[np.ndarray], labels: np.ndarray,
        upright: bool, published: int,
    ) -> None:  # fmt: skip
        self.name, self.split, self.classes, self.labels = name, split, classes, labels
        self._parts, self._upright = parts, upright
        self._ends = np.cumsum([len(part) for part in parts])
        digest = hashlib.blake2b(labels.tobytes(), digest_size=8)
        for part in parts:  # of each file its first and last picture, without reading the whole
            digest.update(part[0].tobytes() + part[-1].tobytes())
        self.fingerprint = digest.hexdigest()
        some = len(self) != published
        self.notes = (f"{len(self):,} of {published:,} pictures: not the published split",) if some else ()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def row(self, index: int) -> Row:
        """The class as caption; of pictures without one, that it is a picture."""
        label = int(self.labels[index])
        words = self.templates[0].format(self.classes[label]) if label >= 0 else "a photo."
        key = f"{self.split}-{index:05}"
        return Row(key, stable_id(f"{self.name} {key}"), (words,), label, f"{self.name}@{self.split}, picture {index}")

    def image(self, index: int) -> Image.Image:
        """RGB, at the pictures' own side."""
        return Image.fromarray(self._pixels(index))

    def _pixels(self, index: int) -> np.ndarray:
        part = int(np.searchsorted(self._ends, index, side="right"))
        planes = self._parts[part][index - (int(self._ends[part - 1]) if part else 0)]
        return np.ascontiguousarray(planes.transpose(1, 2, 0) if self._upright else planes.transpose(2, 1, 0))


def _open(layout: Layout, name: str, root: Path, split: str) -> BinaryPictures:
    folder = next((root / each for each in layout.folders if (root / each / layout.files["train"][0]).is_file()), root)
    classes = tuple(
        words.strip() for _, words in read_lines(_file(folder, layout.names, layout)) if words and words.strip()
    )
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise DataError(
            f"{folder / layout.names} names {len(classes)} classes, {len(set(classes))} different; get it again"
        )
    parts, labels = [], []
    for each in layout.files[split]:
        pixels, own = _records(_file(folder, each, layout), layout)
        if not layout.labels:
            own = _labels_beside(folder, each, len(pixels), layout)
        wrong = np.flatnonzero((own >= len(classes)) | (own < -1))
        if len(wrong):
            raise DataError(
                f"{folder / each}, picture {int(wrong[0])}: the class is {int(own[wrong[0]])}; {layout.names} names {len(classes)}: "
                f"the files do not belong together, or one is damaged; get {layout.get} again"
            )
        parts.append(pixels)
        labels.append(own)
    found = np.concatenate(labels)
    return BinaryPictures(f"{name}:{root}", split, classes, parts, found, layout.upright, layout.counts[split])


def _file(folder: Path, name: str, layout: Layout) -> Path:
    if not (folder / name).is_file():
        pickled = [each.name for each in folder.glob("**/data_batch_1")] if folder.is_dir() else []
        hint = "; what is there is the pickled version, which is not read" if pickled else ""
        there = listed(folder) if folder.is_dir() else "no such folder"
        raise DataError(f"{folder} has no {name} ({there}){hint}; it is in {layout.get}")
    return folder / name


def _records(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3, side, side) uint8, mapped from the file, and labels (N,)."""
    size, each = path.stat().st_size, layout.labels + 3 * layout.side**2
    if size == 0 or size % each:
        raise DataError(
            f"{path} has {size:,} bytes, which is no whole number of pictures of {each:,}; it was cut off: get {layout.get} again"
        )
    records = np.memmap(path, np.uint8, mode="r").reshape(-1, each)
    labels = records[:, layout.labels - 1].astype(np.int64) if layout.labels else np.full(len(records), -1)
    return records[:, layout.labels :].reshape(-1, 3, layout.side, layout.side), labels


def _labels_beside(folder: Path, name: str, count: int, layout: Layout) -> np.ndarray:
    """STL-10's labels, from 1; those of `unlabeled_X.bin` are not there and are -1."""
    if name.startswith("unlabeled"):
        return np.full(count, -1, dtype=np.int64)
    path = _file(folder, name.replace("_X", "_y"), layout)
    labels = np.fromfile(path, np.uint8).astype(np.int64) - 1
    if len(labels) != count or labels.min() < 0:
        raise DataError(
            f"{path} has {len(labels):,} labels from {int(labels.min()) + 1}; expected {count:,}, from 1: get {layout.get} again"
        )
    return labels


@dataclass(frozen=True)
class PictureSet:
    """A published set of labelled pictures.

    Attributes:
        about: a line on it.
        layout: of its files.
    """

    about: str
    layout: Layout


PICTURE_SETS: dict[str, PictureSet] = {
    "cifar10": PictureSet("CIFAR-10, 32 x 32 pixels, ten classes", _CIFAR10),
    "cifar100": PictureSet("CIFAR-100, 32 x 32 pixels, a hundred classes", _CIFAR100),
    "stl10": PictureSet("STL-10, 96 x 96 pixels, ten classes, most without a label", _STL10),
}
"""Sets that are opened by name and folder: `cifar10:data/cifar10@test`."""


def open_picture_set(name: str, folder: str, split: str) -> BinaryPictures:
    """One split of a set.

    Raises:
        DataError: if it has no such split, or files are missing, damaged or pickled.
    """
    layout = PICTURE_SETS[name].layout
    if split not in layout.files:
        raise DataError(f"{name} has no split {split!r}; it has {', '.join(layout.files)}")
    return _open(layout, name, Path(folder).expanduser(), split)


def picture_splits_there(name: str, folder: str) -> tuple[str, ...]:
    """The splits whose files are in the folder; all if none is, so that opening one says what is missing."""
    layout, root = PICTURE_SETS[name].layout, Path(folder).expanduser()
    there = tuple(
        split
        for split, files in layout.files.items()
        if any(all((root / each / file).is_file() for file in files) for each in layout.folders)
    )
    return there or tuple(layout.files)
