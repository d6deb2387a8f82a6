"""Lists, lines and folders that a whole data set hangs on."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from multiway.data.annotated.records import listed
from multiway.data.source import DataError

__all__ = ["find_folder", "list_in", "read_lines"]


def find_folder(root: Path, names: Sequence[str], what: str, remedy: str) -> Path:
    """The first of several places where a folder may lie; `root` itself is written as an empty name.

    Raises:
        DataError: if it lies in none, with what is there instead.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; expected one with {names[0]}/; correct the path")
    for name in names:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/" for name in names[:3])
    raise DataError(f"{root} has no {what}: expected {wanted} in it; it has {listed(root)}; {remedy}")


def list_in(data: dict[str, Any], key: str, path: Path) -> list[Any]:
    """A list that a file of one object must have.

    Raises:
        DataError: if it is missing, or something else.
    """
    value = data.get(key)
    if not isinstance(value, list):
        raise DataError(
            f"{path.name}: `{key}` is {value!r:.40}; expected a list, as it was published: download the file again"
        )
    return value


def read_lines(path: Path, broken: str = "refuse") -> Iterator[tuple[int, str | None]]:
    """Number from 1 and text of each line that is not empty.

    Args:
        path: the file; one that ends in `.gz` is unpacked.
        broken: `refuse` a file with a line that is not UTF-8, or give `none` for the line.

    Raises:
        DataError: if it cannot be read, is UTF-16, or is refused.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(f"{path.name}: the file is UTF-16; expected UTF-8, convert it or download it again")
                try:
                    text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    if broken == "refuse":
                        raise DataError(
                            f"{path.name}, line {number}: byte {line[error.start]:#04x} is not UTF-8; download the file again"
                        ) from error
                    yield number, None
                    continue
                if text.strip():
                    yield number, text
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the file cannot be read ({error}); check it or download it again") from error
