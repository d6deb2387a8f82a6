"""The questions of Visual Genome from their original file: further training questions for VQA.

Krishna et al., Visual Genome: Connecting Language and Vision Using Crowdsourced Dense Image Annotations, 2017,
arXiv 1602.07332. Published without splits; pictures are held out by the hash of their id, 5 % for val and for test.

    question_answers.json                 [{"id": 1, "qas": [{"qa_id": 986768, "image_id": 1,
                                           "question": "What color is the clock?", "answer": "Green."}, ...]}, ...]
    VG_100K/1.jpg, VG_100K_2/107899.jpg

About half of the pictures are COCO's, some of them in COCO's val: who measures on VQAv2's val should not train on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from multiway.data.annotated.files import ExampleFiles, FolderPictures, Published, gather, one_of_splits
from multiway.data.annotated.records import Record, find_file, read_json
from multiway.data.examples import Asked
from multiway.data.source import BadRow, DataError, held_out_split, stable_id

__all__ = ["QUESTIONS", "SPLITS", "open_visual_genome"]

QUESTIONS = 1_445_322
"""Questions of version 1.2, all splits together."""

SPLITS = {"train": 0.90, "val": 0.05, "test": 0.05, "all": 1.0}
"""Split -> its share of the pictures, about."""

_FOLDERS = ("VG_100K", "VG_100K_2", "images/VG_100K", "images/VG_100K_2", "images")

_REMEDY = (
    "get it from https://homes.cs.washington.edu/~ranjay/visualgenome/api.html, or give another folder: vg:FOLDER@train"
)


def open_visual_genome(root: Path, split: str = "train", images: Path | None = None) -> ExampleFiles[Asked]:
    """The questions about one split's pictures, each with one answer without its full stop; no groups.

    Args:
        root: folder with `question_answers.json`, or with `annotations/`.
        split: of `SPLITS`.
        images: folder with the pictures, or with `VG_100K/` and `VG_100K_2/`; by default `root`, or `images/` in it.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    one_of_splits("vg", split, SPLITS)
    path = find_file(
        root, ("question_answers.json", "annotations/question_answers.json"), "questions of Visual Genome", _REMEDY
    )
    pictures = FolderPictures(images or root)
    records = list(_records(path))
    here = [record for record in records if split == "all" or _split(record) in (split, "")]
    if records and not here:
        raise DataError(
            f"{path.name}: none of its {len(records):,} questions is about a picture of split {split!r}; "
            f"a few pictures may leave a split empty: write vg:{root}@all"
        )

    def make(record: Record) -> Asked:
        key = str(record.number("qa_id"))
        file = f"{record.number('image_id')}.jpg"
        number = pictures.number(*(f"{folder}/{file}" for folder in _FOLDERS), file)
        answer = record.text("answer")
        where = f"{path.name}, question {key}"
        return Asked(key, (number,), record.text("question"), where, "", (answer.removesuffix(".").strip() or answer,))

    return gather(
        f"vg:{root}", split, "asked", here, make, pictures,
        published=Published(QUESTIONS, "questions"), size=len(records),
    )  # fmt: skip


def _records(path: Path) -> Iterator[Record]:
    """Every question of every picture; a picture whose list cannot be read is one record, to be rejected."""
    for number, row in enumerate(read_json(path, list), 1):
        where = f"{path.name}, picture {number}"
        try:
            questions = Record(where, row).list("qas", fewest=0)
        except BadRow:
            yield Record(where, row)
            continue
        for place, each in enumerate(questions, 1):
            yield Record(f"{where}, question {place}", each)


def _split(record: Record) -> str:
    """The split of a question's picture; empty where that cannot be told, so that the row is rejected in every split."""
    try:
        return held_out_split(stable_id(str(record.number("image_id"))))
    except BadRow:
        return ""
