"""RefCOCO, RefCOCO+ and RefCOCOg from their original files: which thing of the picture do these words mean?

Kazemzadeh et al., ReferItGame, EMNLP 2014; Yu et al., Modeling Context in Referring Expressions, 2016, arXiv 1608.00272;
Mao et al., Generation and Comprehension of Unambiguous Object Descriptions, 2016, arXiv 1511.02283 (RefCOCOg).

    refcoco/refs(unc).p     [{"ref_id", "ann_id", "image_id", "split", "sentences": [{"sent_id", "sent"}, ...]}, ...]
    refcoco/instances.json  {"images": [{"id", "file_name", "width", "height"}],
                             "annotations": [{"id", "image_id", "bbox": [left, top, width, height]}], ...}
    train2014/COCO_train2014_000000581857.jpg

Every expression is one example. Its candidates are all of COCO's boxes in the picture, which is what accuracy "over
ground-truth boxes" chooses from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multiway.data.annotated.boxes import box_of_size
from multiway.data.annotated.files import ExampleFiles, FolderPictures, Published, gather, one_of_splits
from multiway.data.annotated.layout import list_in
from multiway.data.annotated.plain_pickle import read_pickle
from multiway.data.annotated.records import Record, find_file, read_json
from multiway.data.examples import Box, Pointed
from multiway.data.rejected import Rejected
from multiway.data.source import BadRow, DataError

__all__ = ["SPLITS", "SPLITS_G", "open_refcoco", "open_refcoco_plus", "open_refcocog"]

# Split -> partition of the pictures (the file `refs(partition).p`) and the name of the split in it.
SPLITS = {
    "train": ("unc", "train"),
    "val": ("unc", "val"),
    "testA": ("unc", "testA"),
    "testB": ("unc", "testB"),
}
"""Splits of RefCOCO and RefCOCO+: in testA people are meant, in testB anything else."""

SPLITS_G = {
    "train": ("umd", "train"),
    "val": ("umd", "val"),
    "test": ("umd", "test"),
    "google-train": ("google", "train"),
    "google-val": ("google", "val"),
}
"""Splits of RefCOCOg. Google's own share pictures between train and val; UMD's do not, and have a test split."""

# Expressions that were published.
_SIZES = {
    "refcoco": {"train": 120_624, "val": 10_834, "testA": 5_657, "testB": 5_095},
    "refcoco+": {"train": 120_191, "val": 10_758, "testA": 5_726, "testB": 4_889},
    "refcocog": {"train": 80_512, "val": 4_896, "test": 9_602, "google-train": 85_474, "google-val": 9_536},
}

_KNOWN = ("train", "val", "test", "testA", "testB")
_REMEDY = "get it from https://github.com/lichengunc/refer, or give another folder"


def open_refcoco(root: Path, split: str = "val", images: Path | None = None) -> ExampleFiles[Pointed]:
    """One split of RefCOCO.

    Args:
        root: folder with `refs(unc).p` and `instances.json`, or one with `refcoco/`.
        split: of `SPLITS`.
        images: COCO's `train2014/`, or a folder with it; by default `root`.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    return _open("refcoco", root, split, images, one_of_splits("refcoco", split, SPLITS))


def open_refcoco_plus(root: Path, split: str = "val", images: Path | None = None) -> ExampleFiles[Pointed]:
    """One split of RefCOCO+, whose expressions may not say where a thing lies; as `open_refcoco`."""
    return _open("refcoco+", root, split, images, one_of_splits("refcoco+", split, SPLITS))


def open_refcocog(root: Path, split: str = "val", images: Path | None = None) -> ExampleFiles[Pointed]:
    """One split (of `SPLITS_G`) of RefCOCOg, whose expressions are longer; as `open_refcoco`."""
    return _open("refcocog", root, split, images, one_of_splits("refcocog", split, SPLITS_G))


def _open(name: str, root: Path, split: str, images: Path | None, where: tuple[str, str]) -> ExampleFiles[Pointed]:
    partition, inner = where
    file = f"refs({partition}).p"
    path = find_file(root, (f"{name}/{file}", file), f"expressions of {name}'s {split}", _REMEDY)
    things = _Things(find_file(path.parent, ("instances.json",), f"boxes of {name}", _REMEDY))
    pictures = FolderPictures(images or root)

    def make(record: Record) -> Pointed:
        row, expression = record.values if isinstance(record.values, tuple) else (record.values, None)
        ref = Record(record.where, row)
        _split_of(ref)
        sentence = Record(record.where, expression)
        if expression is None:
            ref.list("sentences")  # says what is wrong with it
        key, text = sentence.name("sent_id"), sentence.text("sent")
        if "\ufffd" in text:
            raise BadRow("the expression holds bytes that are not UTF-8; correct it or remove the row")
        box, candidates, shown = things.of(ref.name("ann_id"), ref.name("image_id"))
        places = (shown, f"train2014/{shown}", f"images/train2014/{shown}", f"images/mscoco/images/train2014/{shown}")
        return Pointed(key, (pictures.number(*places),), text, record.where, "", (box,), candidates)

    return gather(
        f"{name}:{root}", split, "pointed", _expressions(path, inner), make, pictures,
        published=Published(_SIZES[name][split], "expressions"), orphans=things.orphans,
    )  # fmt: skip


def _expressions(path: Path, split: str) -> Iterator[Record]:
    """A record for each expression of the split: the reference and the sentence."""
    for number, ref in enumerate(read_pickle(path, list), 1):
        where = f"{path.name}, reference {number}"
        given = ref.get("split") if isinstance(ref, dict) else None
        # One whose split cannot be told may be of this split, so it counts here.
        if isinstance(given, str) and given in _KNOWN and given != split:
            continue
        sentences = ref.get("sentences") if isinstance(ref, dict) else None
        if not isinstance(sentences, list) or not sentences:
            yield Record(where, ref)
            continue
        for place, sentence in enumerate(sentences, 1):
            yield Record(f"{where}, sentence {place}", (ref, sentence))


def _split_of(ref: Record) -> None:
    given = ref.need("split")
    if given not in _KNOWN:
        raise BadRow(f"`split` is {given!r:.40}; expected one of {', '.join(_KNOWN)}; correct or remove the row")


class _Things:
    """COCO's boxes, by picture and by annotation; each is believed when it is asked for."""

    def __init__(self, path: Path) -> None:
        data = read_json(path, dict)
        self.images = self._by_id(data, "images", path)
        self.annotations = self._by_id(data, "annotations", path)
        self.within: dict[str, list[Record]] = defaultdict(list)
        self.orphans: list[Rejected] = []
        """Boxes of no picture: had they been whole, there would be more to choose from somewhere."""
        for record in self._records(data, "annotations", path):
            image_id = _plain_id(record.values.get("image_id")) if isinstance(record.values, dict) else ""
            if image_id and image_id in self.images:
                self.within[image_id].append(record)
            else:
                self.orphans.append(
                    Rejected(record.where, "it belongs to none of the file's images; get the file again")
                )
        self._candidates: dict[str, tuple[Box, ...]] = {}

    @staticmethod
    def _records(data: dict[str, Any], key: str, path: Path) -> Iterator[Record]:
        for number, value in enumerate(list_in(data, key, path), 1):
            yield Record(f"{path.name}, {key.removesuffix('s')} {number}", value)

    @classmethod
    def _by_id(cls, data: dict[str, Any], key: str, path: Path) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for record in cls._records(data, key, path):
            # Whoever refers to one that is no object, or has no id, hears that it is missing.
            own = _plain_id(record.values.get("id")) if isinstance(record.values, dict) else ""
            if not own:
                continue
            if own in found:
                raise DataError(
                    f"{record.where}: its id {own:.40} is also that of {found[own].where}; download the file again"
                )
            found[own] = record
        return found

    def of(self, ann_id: str, image_id: str) -> tuple[Box, tuple[Box, ...], str]:
        """The box that is meant, all boxes of the picture, and the picture's file.

        Raises:
            BadRow: if the files do not fit together, or a box is none.
        """
        thing, image = self.annotations.get(ann_id), self.images.get(image_id)
        if thing is None or image is None:
            missing = f"annotation {ann_id}" if thing is None else f"image {image_id}"
            raise BadRow(f"instances.json has no {missing:.40}; get both files of one release")
        if _plain_id(thing.values.get("image_id")) != image_id:
            raise BadRow(f"{thing.where} is of another picture than the expression, {image_id:.40}; correct the row")
        if image_id not in self._candidates:
            self._candidates[image_id] = tuple(_box(each, image) for each in self.within[image_id])
        return _box(thing, image), self._candidates[image_id], image.text("file_name")


def _plain_id(value: Any) -> str:
    """An id as text; empty, which no reference has, for what is none."""
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""


def _box(thing: Record, image: Record) -> Box:
    width, height = image.number("width", 1), image.number("height", 1)
    return box_of_size(thing.need("bbox"), width, height, f"`bbox` of {thing.where}")
