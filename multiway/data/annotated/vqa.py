"""VQAv2 from its original files: questions and, but for the test sets, ten answers to each.

Goyal et al., Making the V in VQA Matter, 2017, arXiv 1612.00837; Antol et al., VQA, 2015, arXiv 1505.00468.

    v2_OpenEnded_mscoco_val2014_questions.json   {"questions": [{"question_id", "image_id", "question"}, ...]}
    v2_mscoco_val2014_annotations.json           {"annotations": [{"question_id", "image_id", "answer_type",
                                                  "answers": [{"answer"}, ... ten]}, ...]}
    val2014/COCO_val2014_000000262148.jpg

Whatever else was published in this form (OK-VQA under these file names, one's own questions) is read as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from multiway.data.annotated.files import ExampleFiles, FolderPictures, Published, gather, one_of_splits
from multiway.data.annotated.records import Record, find_file, read_json
from multiway.data.examples import Asked
from multiway.data.rejected import Rejected, encodable
from multiway.data.source import BadRow, DataError

__all__ = ["ANSWERS", "SPLITS", "open_vqa"]

ANSWERS = 10
"""People who answered each question; the official accuracy compares each with the other nine."""

_REMEDY = "get it from https://visualqa.org/download.html, or give another folder: vqa:FOLDER@val"


@dataclass(frozen=True)
class _Split:
    """Which files a split is in: `subset` of the questions, `pictures` of COCO, and how many questions were published."""

    subset: str
    pictures: str
    questions: int
    answered: bool = True


SPLITS = {
    "train": _Split("train2014", "train2014", 443_757),
    "val": _Split("val2014", "val2014", 214_354),
    "test": _Split("test2015", "test2015", 447_793, answered=False),
    "test-dev": _Split("test-dev2015", "test2015", 107_394, answered=False),
}


def open_vqa(root: Path, split: str = "val", images: Path | None = None) -> ExampleFiles[Asked]:
    """One split of VQAv2. The group of a question is its `answer_type`: `yes/no`, `number`, `other`.

    Args:
        root: folder with the JSON files, themselves or in `Questions/` and `Annotations/`.
        split: of `SPLITS`.
        images: folder with the pictures, or with COCO's folders of pictures; by default `root`.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    here = one_of_splits("vqa", split, SPLITS)
    file = f"v2_OpenEnded_mscoco_{here.subset}_questions.json"
    path = find_file(root, _places(file, "Questions"), f"questions of VQAv2's {split}", _REMEDY)
    pictures = FolderPictures(images or root)
    answers = _read_answers(root, here.subset, split) if here.answered else None
    unasked = dict.fromkeys(answers or ())
    said: dict[str, str] = {}  # one string for each answer, which is given thousands of times

    def make(record: Record) -> Asked:
        key = str(record.number("question_id"))
        unasked.pop(key, None)
        image = record.number("image_id")
        given, group = ((), "") if answers is None else _answers(answers, key, image, said)
        name = f"COCO_{here.pictures}_{image:012d}.jpg"
        number = pictures.number(f"{here.pictures}/{name}", name)
        return Asked(key, (number,), record.text("question"), f"{path.name}, question {key}", group, given)

    return gather(
        f"vqa:{root}", split, "asked", _records(path, "questions"), make, pictures,
        published=Published(here.questions, "questions"), orphans=_orphans(path, answers, unasked),
    )  # fmt: skip


def _places(file: str, folder: str) -> tuple[str, ...]:
    return (file, f"{folder}/{file}", f"{folder.lower()}/{file}")


def _records(path: Path, key: str) -> Iterator[Record]:
    rows = read_json(path, dict).get(key)
    if not isinstance(rows, list):
        raise DataError(f"{path.name}: there is no list `{key}` in it; {_REMEDY}")
    for number, row in enumerate(rows, 1):
        yield Record(f"{path.name}, {key.removesuffix('s')} {number}", row)


def _read_answers(root: Path, subset: str, split: str) -> dict[str, Record]:
    """The annotation of each question, not yet believed but for its id."""
    file = f"v2_mscoco_{subset}_annotations.json"
    path = find_file(root, _places(file, "Annotations"), f"answers of VQAv2's {split}", _REMEDY)
    found: dict[str, Record] = {}
    for record in _records(path, "annotations"):
        try:
            key = str(record.number("question_id"))
        except BadRow as error:
            key = f"{record.where}: {error}"  # no question will ask for it, so that it is counted as an orphan
        if key in found:
            raise DataError(
                f"{record.where}: question {key} is also answered in {found[key].where}; remove one of them"
            )
        found[key] = record
    return found


def _answers(answers: dict[str, Record], key: str, image: int, said: dict[str, str]) -> tuple[tuple[str, ...], str]:
    """Ten answers to a question, and its type. An empty answer stays, since the accuracy is a share of ten."""
    record = answers.get(key)
    if record is None:
        raise BadRow("the annotation file has no answers to it; get both files of one release")
    if record.number("image_id") != image:
        raise BadRow(
            f"its answers are about picture {record.values['image_id']}, the question about {image}; correct it"
        )
    listed = record.list("answers")
    given = [each["answer"] for each in listed if isinstance(each, dict) and isinstance(each.get("answer"), str)]
    if not len(listed) == len(given) == ANSWERS or not all(map(encodable, given)):
        raise BadRow(f"{record.where} has not {ANSWERS} answers that are text; correct it or remove the question")
    group = record.text("answer_type") if record.get("answer_type") is not None else ""
    return tuple(said.setdefault(each.strip(), each.strip()) for each in given), said.setdefault(group, group)


def _orphans(path: Path, answers: dict[str, Record] | None, unasked: Iterable[str]) -> Iterator[Rejected]:
    """Annotations that no question has asked for; to be drawn after all questions were read."""
    for key in unasked:
        assert answers is not None
        yield Rejected(answers[key].where, f"{path.name} has no question of its id; get both files of one release")
