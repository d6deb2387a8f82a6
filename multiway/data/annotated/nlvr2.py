"""NLVR2 from its original files: is a sentence true of two photographs?

Suhr et al., A Corpus for Reasoning about Natural Language Grounded in Photographs, 2019, arXiv 1811.00491.

    train.json                                       a JSON object on each line: {"identifier": "train-10171-0-0",
                                                     "sentence": "...", "label": "False", "directory": 14, ...}
    images/train/14/train-10171-0-img0.png           the left picture; the right one ends in img1.png
    images/dev/dev-850-0-img0.png                    of dev, test1 and test2, without numbered folders

An identifier is split, set, pair and sentence. One sentence is written for up to four pairs of a set; they are twins, and
`consistency` counts the sentences that are judged rightly for all of them.
"""

from __future__ import annotations

import re
from pathlib import Path

from multiway.data.annotated.files import ExampleFiles, FolderPictures, Published, gather, one_of_splits
from multiway.data.annotated.records import Record, find_file, read_json_lines
from multiway.data.examples import Judged
from multiway.data.source import BadRow

__all__ = ["LABELS", "SPLITS", "open_nlvr2"]

LABELS = ("false", "true")

SPLITS = {
    "train": ("train", 86_373),
    "val": ("dev", 6_982),
    "test": ("test1", 6_967),
    "test2": ("test2", 6_970),
}
"""Split -> the name that files and pictures have, and how many examples were published."""

_REMEDY = "get it from https://github.com/lil-lab/nlvr (nlvr2/data), or give another folder: nlvr2:FOLDER@val"
_IDENTIFIER = re.compile(r"(?P<pair>(?P<set>[A-Za-z0-9]+-\d+)-\d+)-(?P<sentence>\d+)")


def open_nlvr2(root: Path, split: str = "val", images: Path | None = None) -> ExampleFiles[Judged]:
    """One split of NLVR2, with the classes `LABELS` and the pictures in the order left, right.

    Args:
        root: folder with the JSON files, or with the authors' repository of them (`data/` or `nlvr2/data/`).
        split: of `SPLITS`; `test` is the public test set (test1, or test-P).
        images: folder with the pictures or with folders of them; by default `root`, where they may lie in `images/`.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    name, published = one_of_splits("nlvr2", split, SPLITS)
    path = find_file(
        root, (f"{name}.json", f"data/{name}.json", f"nlvr2/data/{name}.json"), f"examples of NLVR2's {split}", _REMEDY
    )
    pictures = FolderPictures(images or root)

    def make(record: Record) -> Judged:
        key = record.name("identifier")
        parts = _IDENTIFIER.fullmatch(key)
        if parts is None:
            raise BadRow(f"`identifier` is {key!r:.60}; expected split-set-pair-sentence such as train-10171-0-0")
        inner = f"/{record.number('directory')}" if record.get("directory") is not None else ""
        pair = []
        for side in (0, 1):
            file = f"{parts['pair']}-img{side}.png"
            folders = dict.fromkeys(
                (f"images/{name}{inner}", f"{name}{inner}", f"images/{name}", name, f"images{inner}", "images")
            )
            pair.append(pictures.number(*(f"{folder}/{file}" for folder in folders), file))
        twin = f"{parts['set']}-{parts['sentence']}"
        return Judged(key, tuple(pair), record.text("sentence"), record.where, "", _label(record), twin)

    return gather(
        f"nlvr2:{root}", split, "judged", read_json_lines(path), make, pictures,
        labels=LABELS, published=Published(published),
    )  # fmt: skip


def _label(record: Record) -> int:
    """`"True"` in the files as published; a JSON truth value where somebody has written them again."""
    value = record.need("label")
    return int(value) if isinstance(value, bool) else record.one_of("label", LABELS)
