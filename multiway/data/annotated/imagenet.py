"""ImageNet-1k from its folders: labels in the usual order, with the words of each class for names.

Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, 2015, arXiv 1409.0575.

    LOC_synset_mapping.txt     n01440764 tench, Tinca tinca; or imagenet_class_index.json {"0": ["n01440764", "tench"], ...}
    train/n01440764/n01440764_18.JPEG
    val/n01440764/ILSVRC2012_val_00000293.JPEG, or all of val/ in one folder with LOC_val_solution.csv

A folder of classes is read by `data/folder.py` too, which takes the folders' names for the classes' words: right for
`golden_retriever/`, useless for `n02099601/`. That is why this reader exists.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from multiway.data.annotated.captioned import Captioned, CaptionFiles, caption_row, gather_captions
from multiway.data.annotated.files import FolderPictures, Published, one_of_splits
from multiway.data.annotated.layout import find_folder, read_lines
from multiway.data.annotated.records import Record, find_file, read_json
from multiway.data.folder import PICTURE_SUFFIXES
from multiway.data.source import BadRow, DataError
from multiway.data.table import Table, WrongWidth

__all__ = ["SPLITS", "open_imagenet", "read_classes"]

SPLITS = {"train": 1_281_167, "val": 50_000}
"""Split -> pictures that were published; those of the test set have no public labels."""

_REMEDY = "imagenet-object-localization-challenge.zip of Kaggle has it"
_SYNSET = re.compile(r"n\d{8}")


def open_imagenet(root: Path, split: str = "val", images: Path | None = None) -> CaptionFiles:
    """One split of ImageNet: rows with a label, and the first word of the class as caption.

    Args:
        root: folder with the list of classes, and with `train/` and `val/` or Kaggle's `ILSVRC/Data/CLS-LOC/`.
        split: of `SPLITS`.
        images: folder with `train/` and `val/`; by default found in `root`.

    Raises:
        DataError: if files are missing or not as published, or too many pictures cannot be used.
    """
    published = one_of_splits("imagenet", split, SPLITS)
    synsets, names = read_classes(root)
    base = images or root
    folder = find_folder(base, (split, f"ILSVRC/Data/CLS-LOC/{split}"), f"pictures of ImageNet's {split}", _REMEDY)
    number = {synset: label for label, synset in enumerate(synsets)}
    flat = _solution(root) if split == "val" and not any(map(_SYNSET.fullmatch, _names(folder))) else None
    pictures = FolderPictures(folder)

    def make(record: Record) -> Captioned:
        file = record.values
        synset = file.partition("/")[0] if flat is None else flat.get(Path(file).stem, "")
        label = number.get(synset)
        if label is None:
            told = f"{synset!r:.40}, which is none of the {len(synsets):,} classes listed" if synset else "not told"
            raise BadRow(f"the class of {file:.80} is {told}; correct the folder or the list")
        return caption_row(record.where, (file,), (names[label],), pictures, label=label)

    found = gather_captions(
        f"imagenet:{root}", split, _pictures(folder, flat is None), make, pictures,
        published=Published(published, "pictures"), classes=names, templates=("a photo of a {}.", "{}"),
    )  # fmt: skip
    alike = [name for name, count in Counter(names).items() if count > 1]
    if alike:
        found.notes = (*found.notes, f"classes of the same name cannot be told by their words: {', '.join(alike[:5])}")
    return found


def _pictures(folder: Path, by_class: bool) -> Iterator[Record]:
    """Paths within the folder, sorted, so that rows are the same on every machine."""
    names = _names(folder)
    for name in names:
        if by_class and (folder / name).is_dir():
            inner = (f"{name}/{each}" for each in _names(folder / name) if _is_picture(each))
            yield from (Record(each, each) for each in inner)
        elif _is_picture(name):
            yield Record(name, name)


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(each.name for each in entries)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def read_classes(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Synsets in the usual order, which is their alphabetical one, and the first word of each.

    Where two classes share their first word (there are two cranes and two maillots), both get all their words.

    Raises:
        DataError: if neither list is there, or it is none.
    """
    places = ("LOC_synset_mapping.txt", "imagenet_class_index.json")
    path = find_file(root, places, "list of ImageNet's classes", _REMEDY)
    words: dict[str, list[str]] = {}
    for where, synset, said in _listed(path):
        if not _SYNSET.fullmatch(synset) or not said.strip():
            raise DataError(
                f"{path.name}, {where}: found {synset!r:.40}; expected n01440764 and its words: get it again"
            )
        if synset in words:
            raise DataError(f"{path.name}, {where}: {synset} is listed twice; download the file again")
        words[synset] = [each.strip() for each in said.split(",") if each.strip()] or [said.strip()]
    if not words:
        raise DataError(f"{path.name} lists no classes; download it again")
    synsets = tuple(sorted(words))
    first = Counter(words[each][0] for each in synsets)
    return synsets, tuple(words[each][0] if first[words[each][0]] == 1 else ", ".join(words[each]) for each in synsets)


def _listed(path: Path) -> Iterator[tuple[str, str, str]]:
    """Place, synset and words of each class."""
    if ".txt" in path.suffixes:
        for number, line in read_lines(path):
            synset, _, said = (line or "").strip().partition(" ")
            yield f"line {number}", synset, said
        return
    for key, value in read_json(path, dict).items():
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(each, str) for each in value):
            raise DataError(
                f'{path.name}, class {key:.20}: found {value!r:.60}; expected ["n01440764", "tench"]: get it again'
            )
        yield f"class {key:.20}", value[0], value[1].replace("_", " ")


def _solution(root: Path) -> dict[str, str]:
    """Synset of each picture of a val folder that has no folders inside.

    Raises:
        DataError: if it is not there, or has other columns.
    """
    path = find_file(
        root,
        ("LOC_val_solution.csv",),
        "list of the labels of val/, whose pictures are not in folders of classes",
        _REMEDY,
    )
    found: dict[str, str] = {}
    table = Table(path)
    if not {"ImageId", "PredictionString"} <= set(table.columns):
        raise DataError(
            f"{path.name} has the columns {', '.join(table.columns):.80}; expected ImageId, PredictionString"
        )
    for record in table.records(()):
        if not isinstance(record.values, WrongWidth):
            found[str(record.values["ImageId"])] = str(record.values["PredictionString"]).split(" ")[0]
    return found
