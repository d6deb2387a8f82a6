"""Pairs of captions that differ in one fact or in the order of their words: Winoground, ARO, SugarCrepe.

Winoground (Thrush et al., 2022, arXiv 2204.03162) has two pictures and two captions, of which each fits one; its four
combinations are `Judged` examples that share a twin, in the order (picture 0, caption 0), (0, 1), (1, 0), (1, 1), so that its
text, image and group scores all follow from four matching scores.

    examples.jsonl                {"id", "image_0": "ex_0_img_0", "image_1", "caption_0", "caption_1", "collapsed_tag", ...}
    images/ex_0_img_0.png

ARO (Yuksekgonul et al., When and why vision-language models behave like bags-of-words, 2023, arXiv 2210.01936) and SugarCrepe
(Hsieh et al., 2023, arXiv 2306.14610) have one picture with a true and a false caption: `Chosen` examples.

    visual_genome_relation.json   [{"image_path", "true_caption", "false_caption", "bbox_x", "bbox_y", "bbox_w", "bbox_h",
                                    "relation_name"}, ...]; the part of the picture that is meant is cut out
    swap_att.json                 {"0": {"filename": "000000544519.jpg", "caption", "negative_caption"}, ...}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from multiway.data.annotated.files import ExampleFiles, FolderPictures, Published, gather, one_of_splits
from multiway.data.annotated.records import Record, find_file, read_json, read_json_lines
from multiway.data.examples import Chosen, Judged
from multiway.data.source import BadRow, stable_id

__all__ = [
    "LABELS", "QUESTION", "SPLITS", "SPLITS_ARO", "SPLITS_SUGARCREPE", "Cuts",
    "open_aro", "open_sugarcrepe", "open_winoground",
]  # fmt: skip

QUESTION = "which caption fits the picture?"
"""Stands as the text of choices between captions, which ask nothing."""

LABELS = ("false", "true")

SPLITS = {"test": 400}
"""Winoground's only split."""

SPLITS_ARO = {"relation": 23_937, "attribution": 28_748}

SPLITS_SUGARCREPE = {
    "replace_obj": 1_652, "replace_att": 788, "replace_rel": 1_406, "swap_obj": 245, "swap_att": 666,
    "add_obj": 2_062, "add_att": 692, "test": 7_511,
}  # fmt: skip
"""SugarCrepe's seven files, and `test` for all of them together."""

_GET_WINOGROUND = "get it from https://huggingface.co/datasets/facebook/winoground, or give another folder"
_GET_ARO = "get it as https://github.com/mertyg/vision-language-models-are-bows says, or give another folder"
_GET_SUGARCREPE = "get data/ from https://github.com/RAIVNLab/sugar-crepe, or give another folder"


def open_winoground(root: Path, split: str = "test", images: Path | None = None) -> ExampleFiles[Judged]:
    """Winoground. The group is the collapsed tag: `Object`, `Relation`, `Both`.

    Args:
        root: folder with `examples.jsonl`.
        split: `test`.
        images: folder of the pictures; by default `images/` in `root`, or `root`.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    published = one_of_splits("winoground", split, SPLITS)
    path = find_file(root, ("examples.jsonl", "data/examples.jsonl"), "examples of Winoground", _GET_WINOGROUND)
    pictures = FolderPictures(images or root)
    rows = list(read_json_lines(path))
    # A row is used whole or not at all: three of four combinations would have no group score.
    records = (Record(row.where, (row, place)) for row in rows for place in range(4))
    twins: dict[str, str] = {}

    def make(record: Record) -> Judged:
        row, place = record.values
        twin = row.name("id")
        if twins.setdefault(twin, row.where) != row.where:
            raise BadRow(f"its id {twin!r:.40} is also that of {twins[twin]}; remove one of the two")
        captions = [row.text(f"caption_{side}") for side in (0, 1)]
        names = [_stem(row, f"image_{side}") for side in (0, 1)]
        if captions[0] == captions[1] or names[0] == names[1]:
            raise BadRow("its two captions or its two pictures are the same; correct or remove the row")
        shown = [
            pictures.number(*(f"{folder}{name}{end}" for folder in ("images/", "") for end in (".png", ".jpg", "")))
            for name in names
        ]
        picture, caption = divmod(place, 2)
        group = row.text("collapsed_tag") if row.get("collapsed_tag") is not None else ""
        key = f"{twin}-{picture}-{caption}"
        return Judged(key, (shown[picture],), captions[caption], row.where, group, int(picture == caption), twin)

    return gather(
        f"winoground:{root}", split, "judged", records, make, pictures,
        labels=LABELS, published=Published(published, "examples"), size=len(rows),
    )  # fmt: skip


def _stem(row: Record, key: str) -> str:
    name = row.name(key)
    return name.removesuffix(".png").removesuffix(".jpg")


class Cuts:
    """Parts of pictures, numbered in the order in which they are first named; satisfies `Pictures`.

    Args:
        pictures: the whole ones.
    """

    def __init__(self, pictures: FolderPictures) -> None:
        self.pictures = pictures
        self.files: list[str] = []
        """Name of the picture and the part of it."""
        self._parts: list[tuple[int, tuple[int, int, int, int]]] = []
        self._number: dict[tuple[int, tuple[int, int, int, int]], int] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def number(self, picture: int, corners: tuple[int, int, int, int]) -> int:
        """The number of a part: left, top, right, bottom in pixels of a picture of the folder."""
        part = (picture, corners)
        if part not in self._number:
            self._number[part] = len(self._parts)
            self._parts.append(part)
            self.files.append(f"{self.pictures.files[picture]} {corners}")
        return self._number[part]

    def image(self, index: int) -> Image.Image:
        """The decoded part.

        Raises:
            BadRow: if the picture cannot be decoded, or ends before the part begins.
        """
        picture, corners = self._parts[index]
        whole = self.pictures.image(picture)
        if corners[0] >= whole.width or corners[1] >= whole.height:
            raise BadRow(
                f"{self.pictures.files[picture]}: its part {corners} lies outside its {whole.width} x {whole.height} pixels; "
                "get the pictures of the benchmark, in their own size"
            )
        # Visual Genome's boxes reach a pixel or two over the edge; Pillow would fill that with black.
        return whole.crop((corners[0], corners[1], min(corners[2], whole.width), min(corners[3], whole.height)))


def open_aro(root: Path, split: str = "relation", images: Path | None = None) -> ExampleFiles[Chosen]:
    """Visual Genome Relation or Attribution of ARO. The group is the relation, or both attributes.

    ARO's orders of COCO and Flickr30k are not files: they are shuffled anew from captions by each user.

    Args:
        root: folder with `visual_genome_relation.json` and `visual_genome_attribution.json`.
        split: of `SPLITS_ARO`.
        images: folder of Visual Genome's pictures; by default `images/` in `root`, or `root`.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    published = one_of_splits("aro", split, SPLITS_ARO)
    path = find_file(root, (f"visual_genome_{split}.json",), f"pairs of ARO's {split}", _GET_ARO)
    pictures = FolderPictures(images or root)
    cuts = Cuts(pictures)
    records = (Record(f"{path.name}, row {number}", value) for number, value in enumerate(read_json(path, list), 1))

    def make(record: Record) -> Chosen:
        key = f"{split}-{record.where.rsplit(' ', 1)[1]}"
        file = record.name("image_path")
        left, top, wide, high = (
            _pixels(record, f"bbox_{side}", least) for side, least in (("x", 0), ("y", 0), ("w", 1), ("h", 1))
        )
        if split == "relation":
            group = record.text("relation_name", 100)
        else:
            group = " and ".join(str(each) for each in record.list("attributes", 2)[:2])
        choices, label = _two(record, "true_caption", "false_caption", key)
        picture = pictures.number(f"images/{file}", file)
        number = cuts.number(picture, (left, top, left + wide, top + high))
        return Chosen(key, (number,), QUESTION, record.where, group, choices, label)

    return gather(f"aro:{root}", split, "chosen", records, make, cuts, published=Published(published, "pairs"))


def _pixels(record: Record, key: str, least: int) -> int:
    # Some boxes of Visual Genome begin a pixel or so before the picture.
    value = record.need(key)
    if isinstance(value, bool) or not isinstance(value, int) or not -10 <= value < 100_000:
        raise BadRow(f"`{key}` is {value!r:.20}; expected a whole number of pixels, correct the row")
    if value < least and least == 1:
        raise BadRow(f"`{key}` is {value}; expected at least 1 pixel, correct the row")
    return max(value, least)


def open_sugarcrepe(root: Path, split: str = "test", images: Path | None = None) -> ExampleFiles[Chosen]:
    """SugarCrepe. The group is the kind of change, which is also the name of the file: `swap_att`, ...

    Args:
        root: folder with the JSON files, or with `data/`.
        split: of `SPLITS_SUGARCREPE`.
        images: COCO's `val2017/`, or a folder with it; by default `root`.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    published = one_of_splits("sugarcrepe", split, SPLITS_SUGARCREPE)
    wanted = [name for name in SPLITS_SUGARCREPE if name != "test"] if split == "test" else [split]
    paths = [
        find_file(root, (f"{name}.json", f"data/{name}.json"), f"pairs of SugarCrepe's {name}", _GET_SUGARCREPE)
        for name in wanted
    ]
    pictures = FolderPictures(images or root)

    def records() -> Iterator[Record]:
        for name, path in zip(wanted, paths, strict=True):
            for number, value in read_json(path, dict).items():
                yield Record(f"{path.name}, pair {number:.40}", (name, number, value))

    def make(record: Record) -> Chosen:
        name, number, value = record.values
        row = Record(record.where, value)
        file = row.name("filename")
        key = f"{name}-{number}"
        choices, label = _two(row, "caption", "negative_caption", key)
        shown = pictures.number(f"val2017/{file}", file, f"images/val2017/{file}")
        return Chosen(key, (shown,), QUESTION, record.where, name, choices, label)

    return gather(
        f"sugarcrepe:{root}", split, "chosen", records(), make, pictures, published=Published(published, "pairs")
    )


def _two(record: Record, right: str, wrong: str, key: str) -> tuple[tuple[str, str], int]:
    """The two captions, in an order that the key decides.

    With the right one always first, a model that finds both alike would be right every time.
    """
    captions: tuple[Any, Any] = (record.text(right), record.text(wrong))
    if captions[0] == captions[1]:
        raise BadRow(f"`{right}` and `{wrong}` are the same; correct or remove the row")
    label = stable_id(key) & 1
    return (captions[1], captions[0]) if label else captions, label
