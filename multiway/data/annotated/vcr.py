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
from 1, which is how the authors' own wording ("Does 3 feel comfortable?") counts. The boxes of all objects that the question or
a choice names are drawn into the still, each in the colour of its number (`vcr_regions.py`); `open_vcr_plain` leaves the stills
as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiway.data.annotated.files import ExampleFiles, FolderPictures, Published, gather, one_of_splits
from multiway.data.annotated.records import Record, checked_text, find_file, read_json_lines
from multiway.data.annotated.vcr_regions import DrawnStills, Region, read_regions
from multiway.data.examples import Chosen
from multiway.data.source import BadRow

__all__ = ["CHOICES", "SPLITS", "VcrFiles", "named_in", "open_vcr", "open_vcr_plain", "words_of"]

SPLITS = {"train": 212_923, "val": 26_534, "test": 25_263}
"""Split -> questions that were published; those of `test` come without the right choices."""

CHOICES = 4

_REMEDY = "get vcr1annots.zip from https://visualcommonsense.com/download, or give another folder: vcr:FOLDER@val"

# What is written without a space before it, as tokenisers had it apart.
_CLOSING = re.compile(r" (n't\b|'(?:s|re|ve|ll|d|m)\b|[.,:;?!%)\]}])", re.IGNORECASE)
_OPENING = re.compile(r"([(\[{$]) ")


@dataclass
class VcrFiles(ExampleFiles[Chosen]):
    """A split of VCR, with the regions that its words name.

    Attributes:
        metadata: of each example, the file of its regions, and the names of its objects.
    """

    metadata: Sequence[tuple[Path, tuple[str, ...]]] = ()

    def regions(self, index: int) -> tuple[Region, ...]:
        """All objects of an example's still, in the order of their numbers; reads one file.

        Raises:
            BadRow: if the file is missing, or does not fit the example.
        """
        try:
            return read_regions(*self.metadata[index])
        except BadRow as error:
            raise BadRow(f"{self.examples[index].where}: {error}") from error


def open_vcr(root: Path, split: str = "val", images: Path | None = None, *, drawn: bool = True) -> VcrFiles:
    """One split of VCR: `label` is the right answer, `reason` the right reason given that answer.

    Args:
        root: folder with `train.jsonl`, `val.jsonl`, `test.jsonl`.
        split: of `SPLITS`; `test` has labels of -1.
        images: folder with `vcr1images/`, or that folder; by default `root`.
        drawn: draw the boxes of what the words name, as models without a detector are given the stills.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    published = one_of_splits("vcr", split, SPLITS)
    places = (f"{split}.jsonl", f"vcr1annots/{split}.jsonl")
    path = find_file(root, places, f"questions of VCR's {split}", _REMEDY)
    stills = FolderPictures(images or root)
    drawings = DrawnStills(stills)
    metadata: dict[str, tuple[Path, tuple[str, ...]]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # a still has two or three questions
    there: set[str] = set()  # files of regions

    def make(record: Record) -> Chosen:
        key, still = record.name("annot_id"), record.name("img_fn")
        objects = tuple(checked_text(each, "a name in `objects`", 100) for each in record.list("objects", 0))
        names = tuple(f"{each} {number}" for number, each in enumerate(objects, 1))
        question = words_of(record.need("question"), objects, "`question`")
        answers, label = _choice(record, "answer", objects, split)
        reasons, reason = _choice(record, "rationale", objects, split)
        file = (
            record.text("metadata_fn")
            if record.get("metadata_fn") is not None
            else str(Path(still).with_suffix(".json"))
        )
        number = stills.number(f"vcr1images/{still}", still)
        # The regions lie beside the still, in whichever of the places it was found.
        beside = f"{Path(stills.files[number]).parent}/{Path(file).name}"
        if drawn:
            if beside not in there and not (stills.root / beside).is_file():
                raise BadRow(
                    f"there is no {beside:.200} in {stills.root}, which says where the people are; unpack all of vcr1images.zip, or "
                    "leave the stills undrawn: vcr-plain:FOLDER"
                )
            there.add(beside)
            said = [record.need("question"), *record.need("answer_choices"), *record.need("rationale_choices")]
            number = drawings.number(number, beside, names, named_in(said))
        # `setdefault`, so that a second row of this id, which `gather` refuses, does not change the first.
        metadata.setdefault(key, (stills.root / beside, shared.setdefault(names, names)))
        return Chosen(key, (number,), question, record.where, "", answers, label, reasons, reason)

    name, pictures = ("vcr", drawings) if drawn else ("vcr-plain", stills)
    found = gather(
        f"{name}:{root}", split, "chosen", read_json_lines(path), make, pictures,
        published=Published(published, "questions"),
    )  # fmt: skip
    return VcrFiles(
        found.name, split, found.kind, found.examples, pictures,
        rejected=found.rejected, notes=found.notes, fingerprint=found.fingerprint,
        metadata=[metadata[each.key] for each in found.examples],
    )  # fmt: skip


def open_vcr_plain(root: Path, split: str = "val", images: Path | None = None) -> VcrFiles:
    """As `open_vcr`, with the stills as they are: nothing shows who `person 3` is.

    Raises:
        DataError: as `open_vcr`.
    """
    return open_vcr(root, split, images, drawn=False)


def named_in(texts: Iterable[Sequence[Any]]) -> set[int]:
    """Numbers, from 0, of the objects that any of several lists of tokens points at."""
    return {number for tokens in texts for token in tokens if isinstance(token, list) for number in token}


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
