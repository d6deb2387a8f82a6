"""VCR from its original files: a question about a film still, four answers, and four reasons for the right one.

Zellers et al., From Recognition to Cognition: Visual Commonsense Reasoning, 2019, arXiv 1811.10830.

    val.jsonl                                {"annot_id", "img_fn", "metadata_fn", "objects": ["person", "car", ...],
                                              "question": ["Does", [2], "feel", "comfortable", "?"],
                                              "answer_choices": [[...], ... four], "answer_label": 1,
                                              "rationale_choices": [[...], ... four], "rationale_label": 1}
    vcr1images/lsmdc_3015_.../3015_....jpg   the still
    vcr1images/lsmdc_3015_.../3015_....json  {"boxes": [[left, top, right, bottom, score], ...], "segms": [[polygon, ...], ...],
                                              "names": [...], "width", "height"}

A list among the words points at objects of the still. Here `[2]` becomes `person 3`: class and place in `objects`, counted
from 1, which is how the authors' own wording ("Does 3 feel comfortable?") counts. `VcrFiles.regions` says where they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiway.data.annotated.boxes import box_of_corners
from multiway.data.annotated.files import ExampleFiles, FolderPictures, Published, gather, one_of_splits
from multiway.data.annotated.records import Record, checked_text, find_file, read_json, read_json_lines
from multiway.data.examples import Box, Chosen
from multiway.data.source import BadRow, DataError

__all__ = ["CHOICES", "SPLITS", "Region", "VcrFiles", "open_vcr", "words_of"]

SPLITS = {"train": 212_923, "val": 26_534, "test": 25_263}
"""Split -> questions that were published; those of `test` come without the right choices."""

CHOICES = 4

_REMEDY = "get vcr1annots.zip from https://visualcommonsense.com/download, or give another folder: vcr:FOLDER@val"

# What is written without a space before it, as tokenisers had it apart.
_CLOSING = re.compile(r" (n't\b|'(?:s|re|ve|ll|d|m)\b|[.,:;?!%)\]}])", re.IGNORECASE)
_OPENING = re.compile(r"([(\[{$]) ")


@dataclass(frozen=True)
class Region:
    """An object of a still.

    Attributes:
        name: as the words have it, `person 3`.
        box: where it is.
        polygons: its outline in parts, each a ring of points (x, y), as shares of the picture's width and height.
        score: of the detector that found it, in [0, 1].
    """

    name: str
    box: Box
    polygons: tuple[tuple[tuple[float, float], ...], ...]
    score: float


@dataclass
class VcrFiles(ExampleFiles[Chosen]):
    """A split of VCR, with the regions that its words name.

    Attributes:
        metadata: of each example, its file within the folder of the pictures, and the classes of its objects.
    """

    metadata: Sequence[tuple[str, tuple[str, ...]]] = ()

    def regions(self, index: int) -> tuple[Region, ...]:
        """All objects of an example's still, in the order of their numbers; reads one file.

        Raises:
            BadRow: if the file is missing, or does not fit the example.
        """
        file, objects = self.metadata[index]
        assert isinstance(self.pictures, FolderPictures)
        still = self.pictures.files[self.examples[index].pictures[0]]
        # The metadata lie beside the still, in whichever of the places it was found.
        path = self.pictures.root / Path(still).parent / Path(file).name
        try:
            return _regions(Record(path.name, read_json(path, dict)), objects)
        except (DataError, BadRow) as error:
            raise BadRow(f"{self.examples[index].where}: {error}") from error


def open_vcr(root: Path, split: str = "val", images: Path | None = None) -> VcrFiles:
    """One split of VCR: `label` is the right answer, `reason` the right reason given that answer.

    Args:
        root: folder with `train.jsonl`, `val.jsonl`, `test.jsonl`.
        split: of `SPLITS`; `test` has labels of -1.
        images: folder with `vcr1images/`, or that folder; by default `root`.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    published = one_of_splits("vcr", split, SPLITS)
    places = (f"{split}.jsonl", f"vcr1annots/{split}.jsonl")
    path = find_file(root, places, f"questions of VCR's {split}", _REMEDY)
    pictures = FolderPictures(images or root)
    metadata: dict[str, tuple[str, tuple[str, ...]]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # a still has two or three questions

    def make(record: Record) -> Chosen:
        key, still = record.name("annot_id"), record.name("img_fn")
        objects = tuple(checked_text(each, "a name in `objects`", 100) for each in record.list("objects", 0))
        question = words_of(record.need("question"), objects, "`question`")
        answers, label = _choice(record, "answer", objects, split)
        reasons, reason = _choice(record, "rationale", objects, split)
        file = (
            record.text("metadata_fn")
            if record.get("metadata_fn") is not None
            else str(Path(still).with_suffix(".json"))
        )
        number = pictures.number(f"vcr1images/{still}", still)
        # `setdefault`, so that a second row of this id, which `gather` refuses, does not change the first.
        metadata.setdefault(key, (file, shared.setdefault(objects, objects)))
        return Chosen(key, (number,), question, record.where, "", answers, label, reasons, reason)

    found = gather(
        f"vcr:{root}", split, "chosen", read_json_lines(path), make, pictures,
        published=Published(published, "questions"),
    )  # fmt: skip
    return VcrFiles(
        found.name, split, found.kind, found.examples, pictures,
        rejected=found.rejected, notes=found.notes, fingerprint=found.fingerprint,
        metadata=[metadata[each.key] for each in found.examples],
    )  # fmt: skip


def _choice(record: Record, what: str, objects: Sequence[str], split: str) -> tuple[tuple[str, ...], int]:
    """The four choices of answers or of reasons, and which is right."""
    given = record.list(f"{what}_choices", CHOICES)
    if len(given) != CHOICES:
        raise BadRow(f"`{what}_choices` lists {len(given)}; expected {CHOICES}, correct or remove the row")
    choices = tuple(
        words_of(each, objects, f"choice {number} of `{what}_choices`") for number, each in enumerate(given, 1)
    )
    if split == "test" and record.get(f"{what}_label") is None:
        return choices, -1
    label = record.number(f"{what}_label")
    if label >= CHOICES:
        raise BadRow(f"`{what}_label` is {label}; expected 0 to {CHOICES - 1}, correct the row")
    return choices, label


def words_of(tokens: Any, objects: Sequence[str], what: str = "the text") -> str:
    """VCR's list of tokens as a sentence.

    Args:
        tokens: words, and lists of numbers of objects.
        objects: class of each object of the picture.
        what: the tokens are called in messages.

    Raises:
        BadRow: if a token is neither, or a number is none of an object's.
    """
    if not isinstance(tokens, list):
        raise BadRow(
            f"{what} is {tokens!r:.60}; expected a list of words and of references to objects, correct the row"
        )
    said = []
    for token in tokens:
        if isinstance(token, list) and token:
            said.append(_and([_named(number, objects, what) for number in token]))
        elif isinstance(token, str):
            said.append(token)
        else:
            raise BadRow(f"{what} holds {token!r:.40}; expected a word or a list of objects' numbers, correct the row")
    text = " ".join(" ".join(said).split())
    return checked_text(_OPENING.sub(r"\1", _CLOSING.sub(r"\1", text)), what)


def _named(number: Any, objects: Sequence[str], what: str) -> str:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(objects):
        raise BadRow(f"{what} points at object {number!r:.20}, but the picture has {len(objects)}; correct the row")
    return f"{objects[number]} {number + 1}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _regions(record: Record, objects: Sequence[str]) -> tuple[Region, ...]:
    width, height = record.number("width", 1), record.number("height", 1)
    boxes, outlines = record.list("boxes", 0), record.list("segms", 0)
    if not len(boxes) == len(outlines) == len(objects):
        raise BadRow(
            f"{record.where} has {len(boxes)} boxes and {len(outlines)} outlines for {len(objects)} objects; "
            "get both files of one release"
        )
    found = []
    for number, (box, outline) in enumerate(zip(boxes, outlines, strict=True)):
        what = f"box {number + 1} of {record.where}"
        if (
            not isinstance(box, list)
            or len(box) != 5
            or isinstance(box[4], bool)
            or not isinstance(box[4], (int, float))
        ):
            raise BadRow(f"{what} is {box!r:.60}; expected left, top, right, bottom and score")
        polygons = _polygons(outline, width, height, what)
        name = _named(number, objects, what)
        found.append(Region(name, box_of_corners(box[:4], width, height, what), polygons, float(box[4])))
    return tuple(found)


def _polygons(outline: Any, width: int, height: int, what: str) -> tuple[tuple[tuple[float, float], ...], ...]:
    try:
        return tuple(tuple((float(x) / width, float(y) / height) for x, y in ring) for ring in outline)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRow(f"the outline of {what} is {outline!r:.40}; expected polygons of points (x, y)") from error
