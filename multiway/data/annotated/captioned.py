"""What the readers of caption sets share: rows of one picture and its captions, and how the bad ones are counted.

A caption set is a `Source`, so that training, retrieval and captioning open it like any other data. Its readers say where
the files lie and what one row means; `gather_captions` counts, looks for duplicates, holds the ceiling on rejected rows and
compares with the published size, as `gather` does for examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from multiway.data.annotated.files import FolderPictures, Published
from multiway.data.annotated.records import Record
from multiway.data.files import PictureFiles
from multiway.data.rejected import REJECTED_CEILING, Rejected, encodable, refuse_too_many
from multiway.data.source import BadRow, DataError, Row, stable_id

__all__ = ["TEMPLATES", "Absent", "CaptionFiles", "Captioned", "caption_row", "gather_captions"]

TEMPLATES = ("a photo of a {}.", "{}")


class Absent(BadRow):
    """A picture that was never downloaded, which is common where a set is published as addresses."""


@dataclass
class CaptionFiles(PictureFiles):
    """One split of a caption set; satisfies `Source` and `HasNotes`.

    Attributes:
        notes: what should be said beside every figure that is measured on it; empty for a whole public split.
    """

    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Captioned:
    """A row as a reader hands it over.

    Attributes:
        row: its words.
        picture: its number in the folder.
        partly: captions of it that were left out.
    """

    row: Row
    picture: int
    partly: tuple[Rejected, ...] = ()


def caption_row(
    where: str,
    places: Sequence[str],
    captions: tuple[str, ...],
    pictures: FolderPictures,
    *,
    key: str = "",
    label: int = -1,
    group: str = "",
    partly: Sequence[Rejected] = (),
) -> Captioned:
    """The row of one picture.

    Args:
        where: file and row.
        places: paths at which the picture may lie; the first names it, so it differs between pictures.
        captions: clean ones; empty only where they are withheld.
        pictures: that number it.
        key: what the set's own submissions call the picture, if its path does not say it.

    Raises:
        BadRow: if the picture lies at none of them, or its name is none that can be written.
    """
    if not encodable(places[0]):
        raise BadRow(f"the picture's name {places[0]!r:.80} is not UTF-8; rename the file")
    row = Row(key or places[0], stable_id(places[0]), captions, label, where, group)
    return Captioned(row, pictures.number(*places), tuple(partly))


def gather_captions(
    name: str,
    split: str,
    records: Iterable[Record],
    make: Callable[[Record], Captioned],
    pictures: FolderPictures,
    *,
    published: Published | None = None,
    orphans: Sequence[Rejected] = (),
    classes: tuple[str, ...] = (),
    templates: tuple[str, ...] = TEMPLATES,
    ceiling: float = REJECTED_CEILING,
) -> CaptionFiles:
    """All rows of a split, each kept, rejected, or absent.

    Args:
        name, split: of the data set.
        records: the rows, in order.
        make: turns one into a row; raises `BadRow` where it cannot, `Absent` where a picture was not downloaded.
        pictures: the folder, which `make` numbers as it goes.
        published: size of the public split, for the note.
        orphans: losses that are found elsewhere, such as captions without a picture.
        classes, templates: for sets with labels.
        ceiling: share of the rows that are there which may be left out.

    Raises:
        DataError: if there are no rows, no pictures, or too many rows cannot be used.
    """
    kept: list[Row] = []
    files: list[str] = []
    lost, partly = list(orphans), list[Rejected]()
    place: dict[int, str] = {}  # by picture: keys may be ids, of which two may show one
    rows, absent, first = 0, 0, ""
    for record in records:
        rows += 1
        try:
            found = make(record)
            shown = found.row.image_id
            if shown in place:
                file = pictures.files[found.picture]
                raise BadRow(f"its picture {file!r:.80} is also that of {place[shown]}; remove one of the two rows")
        except Absent as error:
            absent, first = absent + 1, first or f"{record.where}: {error}"
            continue
        except BadRow as error:
            lost.append(Rejected(record.where, str(error)))
            continue
        place[shown] = record.where
        kept.append(found.row)
        files.append(pictures.files[found.picture])
        partly += found.partly
    label = f"{name}@{split}"
    if not rows:
        raise DataError(f"{label}: the annotation files have no rows of this split; download them again")
    refuse_too_many(lost, rows - absent + len(orphans), label, ceiling)
    if not kept:
        raise DataError(f"{label}: none of its {rows:,} pictures is in {pictures.root}; {first}")
    notes = [published.note(rows)] if published else []
    if absent:
        notes.append(f"{rows - absent:,} of {rows:,} pictures were downloaded; the others are left out")
    return CaptionFiles(
        name,
        split,
        kept,
        pictures.root,
        files,
        classes,
        templates,
        lost + partly,
        notes=tuple(filter(None, notes)),
    )
