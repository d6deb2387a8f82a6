"""Flickr30k Entities from its original files: where in the picture is what this phrase of the caption names?

Plummer et al., Flickr30k Entities, 2017, arXiv 1505.04870.

    Sentences/36979.txt     five lines such as: [/EN#283585/people A girl] in [/EN#283587/clothing a red hat] .
    Annotations/36979.xml   <annotation><size/><object><name>283585</name><bndbox/></object> ...
    train.txt, val.txt, test.txt    names of pictures, one a line
    flickr30k-images/36979.jpg

Every phrase whose chain has a box is one example. Phrases that name nothing visible (chain 0), the whole scene, or
something without a box are no examples; that is how the set is evaluated, not a loss. A phrase may mean several boxes (people):
`boxes` lists them all, and whoever follows the paper's protocol takes their union.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from multiway.data.annotated.boxes import box_of_corners
from multiway.data.annotated.files import ExampleFiles, FolderPictures, Published, gather, one_of_splits
from multiway.data.annotated.layout import find_folder, read_lines
from multiway.data.annotated.records import Record, checked_text, find_file
from multiway.data.examples import Box, Pointed
from multiway.data.source import BadRow

__all__ = ["SPLITS", "Phrase", "open_flickr30k_entities", "phrases_of"]

SPLITS = {"train": 29_783, "val": 1_000, "test": 1_000}
"""Split -> pictures that were published."""

_REMEDY = (
    "get annotations.zip and the lists from https://github.com/BryanPlummer/flickr30k_entities, or give another folder"
)
_PHRASE = re.compile(r"\[/EN#(?P<chain>\d+)(?P<types>(?:/[^\s/\[\]]+)+) (?P<words>[^\[\]]+)\]")


@dataclass(frozen=True)
class Phrase:
    """A marked phrase of a caption.

    Attributes:
        chain: number that phrases of the same thing share; `0` for what is not visible.
        kind: the first of its types: `people`, `clothing`, ...
        text: its words.
        start: of its first character in the caption without marks.
    """

    chain: str
    kind: str
    text: str
    start: int


def phrases_of(line: str) -> tuple[str, tuple[Phrase, ...]]:
    """A marked line as the plain caption and its phrases.

    Raises:
        BadRow: if a mark is none of the published form.
    """
    said, found, end = "", [], 0
    for mark in _PHRASE.finditer(line):
        said += line[end : mark.start()]
        words = " ".join(mark["words"].split())
        found.append(Phrase(mark["chain"], mark["types"].split("/")[1], words, len(said)))
        said += words
        end = mark.end()
    said += line[end:]
    if "[/EN#" in said or any(not each.text for each in found):
        raise BadRow(f"the marks of {line!r:.80} are not of the form [/EN#283585/people A girl]; correct the line")
    return said, tuple(found)


def open_flickr30k_entities(root: Path, split: str = "val", images: Path | None = None) -> ExampleFiles[Pointed]:
    """One split of Flickr30k Entities. The group of a phrase is its first type; its `sentence` is the whole caption.

    Args:
        root: folder with `Sentences/`, `Annotations/` and `train.txt`, `val.txt`, `test.txt`.
        split: of `SPLITS`.
        images: folder of the pictures; by default `flickr30k-images/` in `root`, or `root`.

    Raises:
        DataError: if files are missing or not as published, or too many phrases cannot be used.
    """
    published = one_of_splits("flickr30k-entities", split, SPLITS)
    path = find_file(root, (f"{split}.txt",), f"list of the pictures of Flickr30k Entities' {split}", _REMEDY)
    for inner in ("Sentences", "Annotations"):
        find_folder(root, (inner,), f"folder {inner}", _REMEDY)
    pictures = FolderPictures(images or root)
    names = [name for _, line in read_lines(path) if line and (name := line.strip())]

    def make(record: Record) -> Pointed:
        if isinstance(record.values, BadRow):
            raise record.values
        name, key, sentence, phrase, boxes, candidates = record.values
        text = checked_text(phrase.text, "the phrase")
        places = (f"{name}.jpg", f"flickr30k-images/{name}.jpg", f"flickr30k_images/{name}.jpg", f"images/{name}.jpg")
        number = pictures.number(*places)
        return Pointed(key, (number,), text, record.where, phrase.kind, boxes, candidates, sentence, phrase.start)

    unlisted: list[str] = []
    records = _records(root, names, unlisted)
    found = gather(f"flickr30k-entities:{root}", split, "pointed", records, make, pictures)
    notes = [Published(published, "pictures").note(len(names))]
    if unlisted:
        notes.append(
            f"{len(unlisted):,} phrases of chains that the annotations do not list are left out ({unlisted[0]})"
        )
    return replace(found, notes=tuple(filter(None, notes)))


def _records(root: Path, names: list[str], unlisted: list[str]) -> Iterator[Record]:
    """A record for each phrase with boxes; one that says what is wrong for a picture or a line that cannot be read.

    Places of visible phrases of which the annotations say nothing, not even that they have no box, go to `unlisted`.
    """
    for name in names:
        where = f"Sentences/{name}.txt"
        try:
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise BadRow(f"{name!r:.60} is no name of a picture; correct the list of the split")
            lines = _text(root / "Sentences" / f"{name}.txt").splitlines()
            boxes = _boxes(root / "Annotations" / f"{name}.xml")
        except BadRow as error:
            yield Record(where, error)
            continue
        candidates = tuple(dict.fromkeys(box for several in boxes.values() for box in several))
        for number, line in enumerate(lines, 1):
            try:
                sentence, phrases = phrases_of(line)
                sentence = checked_text(sentence, "the caption") if phrases else sentence
            except BadRow as error:
                yield Record(f"{where}, line {number}", error)
                continue
            for place, phrase in enumerate(phrases, 1):
                if phrase.chain not in boxes and phrase.chain != "0":
                    unlisted.append(f"{where}, line {number}, phrase {place}")
                if boxes.get(phrase.chain):
                    key = f"{name}-{number}-{place}"
                    values = (name, key, sentence, phrase, boxes[phrase.chain], candidates)
                    yield Record(f"{where}, line {number}, phrase {place}", values)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BadRow(
            f"{path.parent.name}/{path.name} cannot be read ({error.strerror}); get annotations.zip again"
        ) from error
    except UnicodeDecodeError as error:
        raise BadRow(f"{path.parent.name}/{path.name} is not UTF-8 (byte {error.start + 1:,}); get it again") from error


def _boxes(path: Path) -> dict[str, tuple[Box, ...]]:
    """The boxes of each chain, of which some have none. One box may belong to several chains, and has then several names."""
    text, shown = _text(path), f"{path.parent.name}/{path.name}"
    # Entities are how a small XML file becomes gigabytes; annotations have none.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadRow(f"{shown} declares a document type, which annotations do not; do not use it, get it again")
    try:
        tree = ET.fromstring(text)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise BadRow(f"{shown} is not whole XML ({error}); get it again") from error
    width, height = (_pixels(tree, f"size/{side}", shown) for side in ("width", "height"))
    found: dict[str, list[Box]] = {}
    for thing in tree.iterfind("object"):
        chains = [(name.text or "").strip() for name in thing.iterfind("name")]
        for chain in chains:
            found.setdefault(chain, [])
        edges = thing.find("bndbox")
        if edges is None:
            continue
        # Pixels are counted from 1 in the files; the authors' own reader takes 1 from all four edges.
        corners = [_pixels(edges, side, shown) - 1 for side in ("xmin", "ymin", "xmax", "ymax")]
        box = box_of_corners(corners, width, height, f"a box of {shown}")
        for chain in chains:
            found[chain].append(box)
    return {chain: tuple(dict.fromkeys(several)) for chain, several in found.items()}


def _pixels(parent: ET.Element, name: str, shown: str) -> int:
    text = (parent.findtext(name) or "").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise BadRow(f"`{name}` in {shown} is {text!r:.20}; expected a whole number of pixels, get the file again")
    return int(text)
