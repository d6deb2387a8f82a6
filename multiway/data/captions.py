"""Caption files: JSON Lines, JSON, CSV, TSV or Parquet with the path of a picture and what is said of it.

    multiway train clip --data captions.jsonl --images pictures/

Columns go by the field's usual names or by those given. What makes the whole file doubtful (bad JSON, a missing
column, a key that occurs twice, two ids for one picture) is a `DataError`; a row that cannot be used (no such picture,
no caption, a path out of the images folder) is left out and listed in `rejected`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiway.data.columns import Columns
from multiway.data.files import PictureFiles, split_name
from multiway.data.rejected import (
    CAPTION_CEILING,
    REJECTED_CEILING,
    Rejected,
    clean_captions,
    encodable,
    refuse_too_many,
)
from multiway.data.source import BadRow, DataError, Row, held_out_split, stable_id
from multiway.data.table import Record, Table, WrongWidth

__all__ = ["read_captions"]


@dataclass(frozen=True)
class _Entry:
    """One usable row, before keys and label numbers are settled."""

    shown: str  # path within the images folder
    row: Row
    split: str
    label: str
    key: str


def read_captions(
    path: str | Path,
    images: str | Path = "",
    image_column: str | None = None,
    caption_column: str | None = None,
    longest: int = CAPTION_CEILING,
    ceiling: float = REJECTED_CEILING,
) -> dict[str, PictureFiles]:
    """Read a caption file.

    Rows that show the same picture share `image_id`: the hash of the column `image_id`, else of the path within the
    images folder. Without a column `split`, pictures are held out by that hash. The columns `key` and `label` are used
    where there are any; several captions stand in a list (JSON, Parquet) or in several rows.

    Args:
        path: the file; its suffix says the format.
        images: folder that the paths are relative to and must stay in; by default that of the file.
        image_column, caption_column: names of columns, if unusual.
        longest: characters of the longest caption that is kept.
        ceiling: share of rows that may be left out.

    Returns:
        Its splits by name; only those that have rows.

    Raises:
        DataError: naming file, line and remedy.
    """
    path = Path(path)
    table = Table(path)
    columns = Columns.of(table, image_column, caption_column)
    root = Path(images) if images else path.parent
    if not root.is_dir():
        raise DataError(f"{root}: the images folder does not exist; correct --images")
    lost: list[Rejected] = []
    partly: list[Rejected] = []
    entries = []
    for record in table.records(columns.names):
        try:
            entries.append(_entry(record, columns, root, partly, longest))
        except BadRow as error:
            lost.append(Rejected(record.where, str(error)))
    refuse_too_many(lost, len(entries) + len(lost), str(path), ceiling)
    _check_ids(entries, columns)
    return _splits(str(path), root, entries, lost + partly)


def _entry(record: Record, columns: Columns, root: Path, partly: list[Rejected], longest: int) -> _Entry:
    values = record.values
    if isinstance(values, WrongWidth):
        raise BadRow(
            f"the line has {values.found} columns, the header {values.expected}; quote captions that hold the separator"
        )
    shown = _inside(values.get(columns.image), root)
    if not os.path.isfile(f"{root}/{shown}"):  # noqa: PTH113 - a Path per row would double the time
        raise BadRow(f"there is no picture {shown} in {root}; correct the path, or the images folder with --images")
    captions = clean_captions(
        values.get(columns.caption), record.where, partly, longest, f"fill column `{columns.caption}` or remove the row"
    )
    given = _text(values, columns.image_id, "image_id")
    image_id = stable_id(given or shown)
    split = split_name(_text(values, columns.split, "split")) if columns.split else held_out_split(image_id)
    if not split:
        raise BadRow(f"column `{columns.split}` is empty; name the row's split, or remove the column")
    row = Row("", image_id, captions, where=record.where)
    return _Entry(shown, row, split, _text(values, columns.label, "label"), _text(values, columns.key, "key"))


def _inside(given: Any, root: Path) -> str:
    """The picture's path relative to the images folder, normalised.

    Raises:
        BadRow: if it is no path or leads out of the folder.
    """
    if given is None or given == "":
        raise BadRow("the picture's path is empty; write one or remove the row")
    if not isinstance(given, str):
        raise BadRow(f"the picture's path is {given!r:.40} ({type(given).__name__}); expected text")
    if re.match(r"[a-z][a-z0-9+.-]*://", given, re.IGNORECASE):
        raise BadRow(f"the picture is an address ({given:.60}), not a file; download it first and name the file")
    if "\0" in given or not encodable(given):
        raise BadRow(f"the picture's path {given!r:.60} holds characters that no file name can have; correct it")
    relative = os.path.normpath(given)
    if os.path.isabs(relative):  # noqa: PTH117 - as above
        relative = os.path.relpath(relative, root.absolute())
    if relative == ".." or relative.startswith(".." + os.sep):
        raise BadRow(
            f"the picture's path {given} leads out of the images folder {root}; move the file in, or widen --images"
        )
    return relative.replace(os.sep, "/")


def _text(values: dict[str, Any], column: str | None, what: str) -> str:
    """An optional value as text; empty where there is none."""
    value = values.get(column) if column else None
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BadRow(f"{what} is {value!r:.40} ({type(value).__name__}); expected text or a number")
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    if not encodable(text):
        raise BadRow(f"{what} {text!r:.40} holds half a surrogate pair, which is no character; correct it")
    return text


def _check_ids(entries: Sequence[_Entry], columns: Columns) -> None:
    """Keys are unique; ids and pictures go together one to one.

    Two ids for one picture would make its captions each other's negatives; one id for two pictures would score one of
    them by the other's captions.
    """
    keys: dict[str, str] = {}
    shown_by_id: dict[int, _Entry] = {}
    id_by_shown: dict[str, _Entry] = {}
    for entry in entries:
        where = entry.row.where
        if entry.key and keys.setdefault(entry.key, where) != where:
            raise DataError(
                f"{where}: key {entry.key!r} is also that of {keys[entry.key]}; keys must differ, remove one of the rows"
            )
        other = shown_by_id.setdefault(entry.row.image_id, entry)
        if other.shown != entry.shown:
            raise DataError(
                f"{where}: its image_id is also that of {other.row.where}, but the pictures are {entry.shown} and {other.shown}; "
                f"give each picture an id of its own, or remove the column `{columns.image_id}`"
            )
        other = id_by_shown.setdefault(entry.shown, entry)
        if other.row.image_id != entry.row.image_id:
            raise DataError(
                f"{where}: picture {entry.shown} has another image_id than in {other.row.where}; "
                f"give a picture one id, or remove the column `{columns.image_id}`"
            )


def _splits(name: str, root: Path, entries: Sequence[_Entry], rejected: list[Rejected]) -> dict[str, PictureFiles]:
    classes, number = _classes(entries)
    seen: Counter[str] = Counter()
    by_split: dict[str, tuple[list[Row], list[str]]] = {}
    taken = {entry.key for entry in entries}
    for entry in entries:
        key = entry.key or _free_key(entry.shown, seen, taken)
        rows, files = by_split.setdefault(entry.split, ([], []))
        row = entry.row
        rows.append(Row(key, row.image_id, row.captions, number.get(entry.label, -1), row.where))
        files.append(entry.shown)
    templates = ("a photo of a {}.", "{}")
    return {
        split: PictureFiles(name, split, rows, root, files, classes, templates, rejected)
        for split, (rows, files) in sorted(by_split.items())
    }


def _free_key(shown: str, seen: Counter[str], taken: set[str]) -> str:
    """The picture's path; `#2`, `#3`, ... for its further rows."""
    while True:
        seen[shown] += 1
        key = shown if seen[shown] == 1 else f"{shown}#{seen[shown]}"
        if key not in taken:
            taken.add(key)
            return key


def _classes(entries: Sequence[_Entry]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of the labels over all splits, and the number of each. Labels that are numbers keep them."""
    labels = {entry.label for entry in entries if entry.label}
    if labels and all(
        label.isascii() and label.isdigit() and len(label) < 20 and int(label) < 100_000 for label in labels
    ):
        classes = tuple(str(number) for number in range(max(map(int, labels)) + 1))
        return classes, {label: int(label) for label in labels}
    classes = tuple(sorted(labels))
    return classes, {label: number for number, label in enumerate(classes)}
