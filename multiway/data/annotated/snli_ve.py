"""SNLI-VE from its original files: does a Flickr30k picture entail a sentence, contradict it, or leave it open?

Xie et al., Visual Entailment: A Novel Task for Fine-Grained Image Understanding, 2019, arXiv 1901.06706.

    snli_ve_dev.jsonl                     {"Flickr30K_ID": "3416050480", "pairID": "3416050480.jpg#4r1n",
                                           "sentence2": "A person is outdoors.", "gold_label": "entailment", ...}
    flickr30k-images/3416050480.jpg

`sentence1`, the caption from which the sentence was written, is no part of the task and is not read.
"""

from __future__ import annotations

from pathlib import Path

from multiway.data.annotated.files import ExampleFiles, FolderPictures, Published, gather, one_of_splits
from multiway.data.annotated.records import Record, find_file, read_json_lines
from multiway.data.examples import Judged

__all__ = ["LABELS", "SPLITS", "open_snli_ve"]

LABELS = ("entailment", "neutral", "contradiction")

SPLITS = {
    "train": ("snli_ve_train.jsonl", 529_527),
    "val": ("snli_ve_dev.jsonl", 17_858),
    "test": ("snli_ve_test.jsonl", 17_901),
}
"""Split -> its file and how many pairs were published."""

_REMEDY = (
    "get it from https://github.com/necla-ml/SNLI-VE (and the pictures of Flickr30k), or give another folder: "
    "snli-ve:FOLDER@test"
)
_FOLDERS = ("flickr30k-images", "flickr30k_images", "images")
_PICTURE = ("Flickr30K_ID", "Flikr30kID")  # the second, misspelt, in files written by the authors' first script


def open_snli_ve(root: Path, split: str = "test", images: Path | None = None) -> ExampleFiles[Judged]:
    """One split of SNLI-VE, with the classes `LABELS`.

    Args:
        root: folder with the JSON Lines files.
        split: of `SPLITS`.
        images: folder of Flickr30k's pictures; by default `flickr30k-images/` in `root`.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    file, published = one_of_splits("snli-ve", split, SPLITS)
    path = find_file(root, (file, f"data/{file}"), f"pairs of SNLI-VE's {split}", _REMEDY)
    pictures = FolderPictures(images or root)

    def make(record: Record) -> Judged:
        named = _PICTURE[1] if record.get(_PICTURE[1]) is not None and record.get(_PICTURE[0]) is None else _PICTURE[0]
        name = f"{record.name(named).removesuffix('.jpg')}.jpg"
        number = pictures.number(*(f"{folder}/{name}" for folder in _FOLDERS), name)
        label = record.one_of("gold_label", LABELS)
        return Judged(record.name("pairID"), (number,), record.text("sentence2"), record.where, "", label)

    return gather(
        f"snli-ve:{root}", split, "judged", read_json_lines(path), make, pictures,
        labels=LABELS, published=Published(published, "pairs"),
    )  # fmt: skip
