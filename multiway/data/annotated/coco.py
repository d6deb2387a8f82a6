"""Captions of COCO and Flickr30k: Karpathy's splits in one file, and COCO's own caption files.

Karpathy and Fei-Fei (Deep Visual-Semantic Alignments for Generating Image Descriptions, 2015, arXiv 1412.2306) published
`dataset_coco.json` and `dataset_flickr30k.json`; retrieval and captioning are reported on their splits since. For COCO,
"train" is their train and restval together, 113,287 pictures, as all papers have it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from multiway.data.annotated.captioned import Captioned, CaptionFiles, caption_row, gather_captions
from multiway.data.annotated.files import FolderPictures, Published, one_of_splits
from multiway.data.annotated.layout import list_in
from multiway.data.annotated.records import Record, find_file, read_json
from multiway.data.rejected import Rejected, clean_captions
from multiway.data.source import BadRow

__all__ = ["OWN_SPLITS", "SPLITS", "gather_coco_format", "open_coco", "open_flickr30k"]

SPLITS = ("train", "val", "test")
"""Karpathy's."""

OWN_SPLITS = ("train2014", "val2014", "train2017", "val2017")
"""Splits of COCO's own caption files."""

_SIZES = {
    "coco": {"train": 113_287, "val": 5_000, "test": 5_000},
    "flickr30k": {"train": 29_000, "val": 1_014, "test": 1_000},
}
_OWN_SIZES = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}

_IN_FILE = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
_ALL_IN_FILE = ("train", "restval", "val", "test")

_COCO_2014 = re.compile(r"COCO_(?:train|val)2014_(\d{12}\.jpg)")

_GET_KARPATHY = "caption_datasets.zip of cs.stanford.edu/people/karpathy/deepimagesent has it"
_GET_COCO = "cocodataset.org has them as annotations_trainval2014.zip and annotations_trainval2017.zip"


def open_coco(root: Path, split: str = "val", images: Path | None = None) -> CaptionFiles:
    """COCO captions.

    Args:
        root: folder with `dataset_coco.json` for Karpathy's splits, `annotations/captions_*.json` for COCO's own.
        split: of `SPLITS` (Karpathy) or `OWN_SPLITS` (COCO's).
        images: folder with `train2014/` and `val2014/`, or `train2017/` and `val2017/`, which hold the same pictures; by
            default `root`.

    Raises:
        DataError: for another split, missing files, or too many rows that cannot be used.
    """
    if split in OWN_SPLITS:
        return _own(root, split, images)
    return _karpathy(root, split, images, "coco")


def open_flickr30k(root: Path, split: str = "val", images: Path | None = None) -> CaptionFiles:
    """Flickr30k captions in Karpathy's splits.

    Args:
        root: folder with `dataset_flickr30k.json`.
        split: of `SPLITS`.
        images: folder of the pictures; by default `flickr30k-images/` and the like in `root`, or `root`.

    Raises:
        DataError: as `open_coco`.
    """
    return _karpathy(root, split, images, "flickr30k")


def _karpathy(root: Path, split: str, images: Path | None, dataset: str) -> CaptionFiles:
    one_of_splits(dataset, split, dict.fromkeys((*SPLITS, *(OWN_SPLITS if dataset == "coco" else ()))))
    file = f"dataset_{dataset}.json"
    path = find_file(root, (file, f"annotations/{file}", f"karpathy/{file}"), "Karpathy's splits", _GET_KARPATHY)
    pictures = FolderPictures(images or root)

    def records() -> Iterator[Record]:
        for number, value in enumerate(list_in(read_json(path, dict), "images", path), 1):
            given = value.get("split") if isinstance(value, dict) else None
            # A row whose split cannot be told may be one of this split's, so it counts here.
            if not isinstance(given, str) or given in _IN_FILE[split] or given not in _ALL_IN_FILE:
                yield Record(f"{path.name}, image {number}", value)

    def make(record: Record) -> Captioned:
        record.one_of("split", _ALL_IN_FILE)
        partly: list[Rejected] = []
        captions = clean_captions([_raw(each) for each in record.list("sentences")], record.where, partly)
        return caption_row(record.where, _places(record, dataset), captions, pictures, partly=partly)

    published = Published(_SIZES[dataset][split], "pictures")
    return gather_captions(f"{dataset}:{root}", split, records(), make, pictures, published=published)


def _raw(sentence: Any) -> Any:
    return sentence.get("raw") if isinstance(sentence, dict) else sentence


def _places(record: Record, dataset: str) -> tuple[str, ...]:
    """Where a picture may lie, the original place first."""
    file = record.name("filename")
    if dataset == "flickr30k":
        return (file, f"flickr30k-images/{file}", f"flickr30k_images/{file}", f"images/{file}")
    within = f"{record.name('filepath')}/{file}"
    later = _COCO_2014.fullmatch(file)
    renamed = (f"train2017/{later[1]}", f"val2017/{later[1]}") if later else ()
    return (within, f"images/{within}", *renamed, *(f"images/{each}" for each in renamed))


def _own(root: Path, split: str, images: Path | None) -> CaptionFiles:
    file = f"captions_{split}.json"
    path = find_file(root, (f"annotations/{file}", file), f"captions of COCO's {split}", _GET_COCO)
    return gather_coco_format(
        f"coco:{root}",
        split,
        path,
        FolderPictures(images or root),
        lambda given: (f"{split}/{given}", f"images/{split}/{given}", given),
        Published(_OWN_SIZES[split], "pictures"),
    )


def gather_coco_format(
    name: str,
    split: str,
    path: Path,
    pictures: FolderPictures,
    places: Any,
    published: Published,
    groups: Sequence[str] = (),
    by_id: bool = False,
) -> CaptionFiles:
    """A caption file of COCO's format: `images` with `id` and `file_name`, `annotations` with `image_id` and `caption`.

    A file without `annotations` has its captions withheld; its rows then have none.

    Args:
        name, split: of the data set.
        path: the file.
        pictures: the folder.
        places: where a `file_name` may lie in it, as a function.
        published: size of the public split.
        groups: values that the field `domain` of an image may have, where it has one.
        by_id: call rows by the id of their image, which submissions name; else by the path, which in COCO's names has the id.

    Raises:
        DataError: if the file is no such thing, or too many rows cannot be used.
    """
    data = read_json(path, dict)
    withheld = "annotations" not in data
    said: dict[str, list[Any]] = defaultdict(list)
    orphans: list[Rejected] = []
    listed = list_in(data, "images", path)
    known = {str(each.get("id")) for each in listed if isinstance(each, dict)}
    for number, value in enumerate([] if withheld else list_in(data, "annotations", path), 1):
        record = Record(f"{path.name}, annotation {number}", value)
        try:
            image_id = record.name("image_id")
            if image_id not in known:
                raise BadRow(f"its image_id {image_id!r:.40} is none of the file's images; remove it")
        except BadRow as error:
            orphans.append(Rejected(record.where, str(error)))
            continue
        said[image_id].append(record.get("caption"))
    seen: dict[str, str] = {}

    def make(record: Record) -> Captioned:
        image_id = record.name("id")
        if seen.setdefault(image_id, record.where) != record.where:
            raise BadRow(f"its id {image_id!r:.40} is also that of {seen[image_id]}; give each image its own")
        group = groups[record.one_of("domain", groups)] if groups and record.get("domain") is not None else ""
        partly: list[Rejected] = []
        captions = () if withheld else clean_captions(said.get(image_id, []), record.where, partly)
        at, key = places(record.name("file_name")), image_id if by_id else ""
        return caption_row(record.where, at, captions, pictures, key=key, group=group, partly=partly)

    records = (Record(f"{path.name}, image {number}", value) for number, value in enumerate(listed, 1))
    found = gather_captions(name, split, records, make, pictures, published=published, orphans=orphans)
    if groups and not any(row.group for row in found.rows):
        found.notes = (*found.notes, f"{path.name} has no domains: there are figures over all pictures alone")
    if withheld:
        found.notes = (*found.notes, f"the captions of {split} are withheld: it can be captioned, not scored")
    return found
