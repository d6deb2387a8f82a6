"""Annotation files of JSON, read with an address for everything that is wrong with them.

What makes a whole file doubtful (cut off, not UTF-8, of another shape) is a `DataError`. What is wrong with one row is a
`BadRow` that a `Record` raises when a field is asked for, so that readers need no checks of their own.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiway.data.rejected import CAPTION_CEILING, encodable
from multiway.data.source import BadRow, DataError

__all__ = ["Record", "find_file", "listed", "read_json", "read_json_lines"]

_SHOWN = 8  # names of a folder that a message lists


@dataclass(frozen=True)
class Record:
    """One row of an annotation file, not yet believed.

    Attributes:
        where: file and row, for messages.
        values: what stands there; an object of fields, if all is well.
    """

    where: str
    values: Any

    def get(self, key: str) -> Any:
        """A field as it is; None where it is missing or null.

        Raises:
            BadRow: if the row is no object.
        """
        if not isinstance(self.values, dict):
            raise BadRow(
                f"the row is {_shown(self.values)}; expected an object with the field `{key}`, correct the row"
            )
        return self.values.get(key)

    def need(self, key: str) -> Any:
        """A field that must be there.

        Raises:
            BadRow: if it is not, naming the fields that are.
        """
        value = self.get(key)
        if value is None:
            there = ", ".join(f"`{name}`" for name in list(self.values)[:_SHOWN]) or "none"
            raise BadRow(f"the field `{key}` is missing or null; the row has {there}; add it or remove the row")
        return value

    def text(self, key: str, longest: int = CAPTION_CEILING) -> str:
        """Words for people: not empty, without white space around them.

        Raises:
            BadRow: if it is no such text, or has more characters than `longest`.
        """
        return checked_text(self.need(key), f"`{key}`", longest)

    def name(self, key: str) -> str:
        """An identifier, which some files write as text and some as a whole number.

        Raises:
            BadRow: if it is neither.
        """
        value = self.need(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return checked_text(value, f"`{key}`", 1000)

    def number(self, key: str, least: int = 0) -> int:
        """A whole number; one written as text counts, since several releases of one data set differ in that.

        Raises:
            BadRow: if it is not, or is less than `least`.
        """
        value = self.need(key)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadRow(f"`{key}` is {_shown(value)}; expected a whole number of at least {least}, correct the row")
        return value

    def list(self, key: str, fewest: int = 1) -> list[Any]:
        """A list of at least so many things.

        Raises:
            BadRow: if it is no list, or is shorter.
        """
        value = self.need(key)
        if not isinstance(value, list):
            raise BadRow(f"`{key}` is {_shown(value)}; expected a list, correct the row")
        if len(value) < fewest:
            raise BadRow(f"`{key}` lists {len(value)}; expected at least {fewest}, complete it or remove the row")
        return value

    def one_of(self, key: str, names: Sequence[str]) -> int:
        """The place of a word among those that it may be; capitals make no difference.

        Raises:
            BadRow: if it is none of them.
        """
        value = self.need(key)
        if not isinstance(value, str) or value.strip().lower() not in names:
            raise BadRow(f"`{key}` is {_shown(value)}; expected one of {', '.join(names)}; correct or remove the row")
        return names.index(value.strip().lower())


def checked_text(value: Any, what: str, longest: int = CAPTION_CEILING) -> str:
    """A stranger's value as text, stripped.

    Raises:
        BadRow: if it is no text, is empty, too long, or cannot be written as UTF-8; naming it as `what`.
    """
    if not isinstance(value, str):
        raise BadRow(f"{what} is {_shown(value)}; expected text, correct the row")
    text = value.strip()
    if not text:
        raise BadRow(f"{what} is empty; fill it or remove the row")
    if len(text) > longest:
        raise BadRow(f"{what} has {len(text):,} characters, more than {longest:,}; shorten it or remove the row")
    if not encodable(text):
        raise BadRow(f"{what} holds half a surrogate pair, which is no character; write the file as valid UTF-8")
    return text


def _shown(value: Any) -> str:
    return f"{value!r:.40} ({type(value).__name__})"


def find_file(root: Path, names: Sequence[str], what: str, remedy: str) -> Path:
    """The first of several places where a file may lie, itself or compressed as `.gz`.

    Args:
        root: the data set's folder.
        names: paths within it, the original one first.
        what: that the file holds: `questions of VQAv2's val`.
        remedy: where to get it.

    Raises:
        DataError: if it lies in none, with what the folder has instead.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; expected one with {names[0]}; correct the path")
    for name in names:
        for path in (root / name, root / f"{name}.gz"):
            if path.is_file():
                return path
    wanted = " or ".join(names[:3])
    raise DataError(f"{root} has no {what}: expected {wanted} in it; it has {listed(root)}; {remedy}")


def listed(folder: Path) -> str:
    """The first few names of a folder, for messages."""
    names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in folder.iterdir())
    more = f", ... ({len(names):,} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"


def read_json(path: Path, kind: type[dict] | type[list]) -> Any:
    """A file that holds one object or one list.

    Raises:
        DataError: if it cannot be read, is cut off, is no JSON, names a key twice, or holds something else.
    """
    value = _parsed(_decoded(_bytes(path), path.name), path.name)
    if not isinstance(value, kind):
        raise DataError(
            f"{path.name}: the file holds {_shown(value)}; expected {'an object' if kind is dict else 'a list'}, "
            "as it was published: download it again"
        )
    return value


def read_json_lines(path: Path) -> Iterator[Record]:
    """The rows of a file with an object on each line; empty lines are passed over.

    Raises:
        DataError: as `read_json`, for a line.
    """
    for number, line in enumerate(_bytes(path).split(b"\n"), 1):
        if line.strip():
            where = f"{path.name}, line {number}"
            yield Record(where, _parsed(_decoded(line, where), where))


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the file cannot be read ({error}); check it or download it again") from error


def _decoded(data: bytes, where: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{where}: the file is UTF-16; expected UTF-8, convert it or download it again")
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte {data[error.start]:#04x} at position {error.start + 1:,} is not UTF-8; download the file again"
        ) from error


def _parsed(text: str, where: str) -> Any:
    try:
        # A key named twice would silently lose its first value: in GQA's files, where keys are ids, a question.
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: this is not the JSON that was published ({error}); download the file again"
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is there twice")
    return found
