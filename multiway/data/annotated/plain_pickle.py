"""Data sets that were published as pickles, read without running anything that stands in them."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any, NoReturn

from multiway.data.source import DataError

__all__ = ["read_pickle"]

# What an interpreter of damaged opcodes may raise.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    MemoryError,
    struct.error,
)


class _Foreign(Exception):
    """The pickle asks for a class or a function."""


# The interpreter written in Python, not the one in C: in that one a single damaged byte (an index into the table of
# remembered objects) allocates and fills gigabytes before anything can be checked. RefCOCO's 16 MB take three seconds.
class _Plain(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Lists, dictionaries, text and numbers; nothing else exists for it."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Foreign(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Foreign(f"the outside object {pid!r:.40}")


def read_pickle(path: Path, kind: type[list] | type[dict]) -> Any:
    """A pickle of plain data.

    Text that Python 2 wrote as bytes is taken for UTF-8; a byte that is not becomes U+FFFD, which the readers of rows refuse.

    Args:
        path: the file.
        kind: what it should hold.

    Raises:
        DataError: if it cannot be read, is damaged, asks for any class, or holds something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror}); check it") from error
    try:
        value = _Plain(io.BytesIO(data), encoding="utf-8", errors="replace").load()
    except _Foreign as error:
        raise DataError(
            f"{path.name}: this pickle asks for {error}, which data have no need of and which could run any program; "
            "do not open it, download the original file"
        ) from error
    except _DAMAGE as error:
        raise DataError(
            f"{path.name}: this is not a whole pickle ({type(error).__name__}: {error!s:.80}); download the file again"
        ) from error
    if not isinstance(value, kind):
        raise DataError(
            f"{path.name}: the pickle holds a {type(value).__name__}; expected a {kind.__name__}, as it was published: download it again"
        )
    return value
