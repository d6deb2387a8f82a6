"""The version of our own weights file, and how an older one becomes the present one.

    multiway-1   method, config, processor
    multiway-2   and `origin`: whose weights these were before, as a JSON object, `{}` for what was trained here from scratch. And
                 `version`, that of the program that wrote it.
    multiway-3   `origin` is a list: several sources, and what the weights have learned from (`hub/origin.py`).

A field that a config gained later has a default with which nothing changes (`config.LATER`), so that it needs no version. What would mean
something else does: it gets a new number and a line in `_MIGRATIONS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

__all__ = ["FORMAT", "FormatError", "current"]

_NEWEST = 3
FORMAT = f"multiway-{_NEWEST}"

Header = dict[str, str]


class FormatError(ValueError):
    """A header that this version cannot read; the message says why and what helps."""


def _with_origin(header: Header) -> Header:
    return {**header, "origin": "{}", "version": "before 0.1"}


def _several_origins(header: Header) -> Header:
    try:
        one = json.loads(header.get("origin", "{}"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its origin is not JSON: {error}") from error
    if not isinstance(one, dict):
        raise FormatError(f"its format is 'multiway-2', whose origin is an object; given a {type(one).__name__}")
    entry = {("weights" if name == "source" else name): value for name, value in one.items()}
    return {**header, "origin": json.dumps([entry] if entry else [])}


_MIGRATIONS: dict[int, Callable[[Header], Header]] = {
    1: _with_origin,
    2: _several_origins,
}  # from this version to the next


def current(header: Header) -> Header:
    """A header of any version as one of the newest.

    Raises:
        FormatError: if it is no header of ours, or one of a version that is not known here.
    """
    given = header.get("format")
    found = re.fullmatch(r"multiway-(\d+)", given or "")
    if not found:
        raise FormatError(
            f"its header is not multiway's (format {given!r}, expected {FORMAT!r}); convert it first with `multiway convert`"
        )
    version = int(found[1])
    if version > _NEWEST:
        raise FormatError(
            f"its format is {given!r}, and this version of multiway reads up to {FORMAT!r}; install the version that wrote it "
            f"({header.get('version', 'not said')})"
        )
    while version < _NEWEST:
        if version not in _MIGRATIONS:
            raise FormatError(f"its format is {given!r}, which no version of multiway has written")
        header, version = _MIGRATIONS[version](header), version + 1
    return {**header, "format": FORMAT}
