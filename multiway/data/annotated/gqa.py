"""GQA from its original files: compositional questions about scenes of Visual Genome, with one answer each.

Hudson and Manning, GQA: A New Dataset for Real-World Visual Reasoning and Compositional Question Answering, 2019,
arXiv 1902.09506. Version 1.2 of the questions:

    questions1.2/testdev_balanced_questions.json   {"201307251": {"imageId": "n161313", "question": "Is it overcast?",
                                                     "answer": "no", "types": {"structural": "verify", ...}, ...}, ...}
    images/n161313.jpg
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multiway.data.annotated.files import ExampleFiles, FolderPictures, Published, gather, one_of_splits
from multiway.data.annotated.records import Record, find_file, read_json
from multiway.data.examples import Asked
from multiway.data.source import BadRow

__all__ = ["SPLITS", "open_gqa"]

_REMEDY = (
    "get it from https://cs.stanford.edu/people/dorarad/gqa/download.html, or give another folder: gqa:FOLDER@testdev"
)


@dataclass(frozen=True)
class _Split:
    """The file of a split, and how many questions were published. `submission_all` is val, testdev, test and challenge together."""

    file: str
    questions: int = 0
    answered: bool = True


# The balanced questions are what models are compared on; `-all` are those before balancing.
SPLITS = {
    "train": _Split("train_balanced", 943_000),
    "val": _Split("val_balanced", 132_062),
    "testdev": _Split("testdev_balanced", 12_578),
    "test": _Split("test_balanced", 95_336, answered=False),
    "challenge": _Split("challenge_balanced", 50_726, answered=False),
    "val-all": _Split("val_all", 2_011_853),
    "testdev-all": _Split("testdev_all", 172_174),
    "test-all": _Split("test_all", 1_340_048, answered=False),
    "challenge-all": _Split("challenge_all", 713_449, answered=False),
    "submission-all": _Split("submission_all", 4_237_524, answered=False),
}


def open_gqa(root: Path, split: str = "testdev", images: Path | None = None) -> ExampleFiles[Asked]:
    """One split of GQA. The group of a question is its structural type: `verify`, `query`, `choose`, `logical`, `compare`.

    Args:
        root: folder with the JSON files, themselves or in `questions1.2/` or `questions/`.
        split: of `SPLITS`.
        images: folder with the pictures; by default `images/` in `root`.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    here = one_of_splits("gqa", split, SPLITS)
    file = f"{here.file}_questions.json"
    path = find_file(root, (file, f"questions1.2/{file}", f"questions/{file}"), f"questions of GQA's {split}", _REMEDY)
    pictures = FolderPictures(images or root)
    said: dict[str, str] = {}  # one string for each answer and type

    def make(record: Record) -> Asked:
        key = record.where.rpartition(" ")[2]
        answers: tuple[str, ...] = ()
        if here.answered or record.get("answer") is not None:
            answer = record.text("answer")
            answers = (said.setdefault(answer, answer),)
        name = f"{record.name('imageId')}.jpg"
        number = pictures.number(f"images/{name}", name)
        group = _structure(record)
        return Asked(key, (number,), record.text("question"), record.where, said.setdefault(group, group), answers)

    records = (Record(f"{path.name}, question {key}", row) for key, row in read_json(path, dict).items())
    return gather(
        f"gqa:{root}", split, "asked", records, make, pictures, published=Published(here.questions, "questions")
    )


def _structure(record: Record) -> str:
    """The structural type; test sets have none."""
    types = record.get("types")
    if types is None:
        return ""
    if not isinstance(types, dict):
        raise BadRow(f"`types` is {types!r:.40} ({type(types).__name__}); expected an object, correct the row")
    return Record(record.where, types).text("structural") if types.get("structural") is not None else ""
