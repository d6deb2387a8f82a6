"""Names of shards: patterns to files, and what a file's name says."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from multiway.data.files import SPLIT_NAMES
from multiway.data.source import DataError

__all__ = ["expand", "name_of", "split_of"]

_EXPANSIONS = 100_000


def expand(pattern: str) -> list[Path]:
    """The shards that a pattern names, in order.

    Args:
        pattern: a tar, a folder of tars, or a name with braces (`{000..099}`, `{a,b}`) and wild cards (`*`, `?`).

    Raises:
        DataError: if a shard that is named does not exist, or none matches.
    """
    names = _braces(pattern)
    found: list[str] = []
    for name in names:
        if Path(name).is_dir():
            folder = Path(name)
            found += map(str, sorted(folder.glob("*.tar")) or sorted(folder.glob("*/*.tar")))
        elif Path(name).is_file():
            found.append(name)
        elif glob.has_magic(name):
            found += sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    missing = [name for name in names if not glob.has_magic(name) and not Path(name).exists()]
    if missing:
        raise DataError(
            f"{pattern}: {len(missing)} of {len(names)} shards do not exist, the first {missing[0]}; correct the pattern"
        )
    if not found:
        raise DataError(
            f"{pattern}: no shard matches; expected .tar files, as in 'shards/train-{{000000..000099}}.tar'"
        )
    return [Path(name) for name in dict.fromkeys(found)]


def _braces(pattern: str) -> list[str]:
    """Bash's brace expansion, without nesting: ranges keep their zeros."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if span:
        first, last = int(span[1]), int(span[2])
        if not first <= last < first + _EXPANSIONS:
            raise DataError(
                f"{pattern}: the range {found[0]} is empty or too long; expected {{first..last}} with at most {_EXPANSIONS:,} shards"
            )
        options = [f"{number:0{len(span[1])}d}" for number in range(first, last + 1)]
    else:
        options = found[1].split(",")
    return [pattern[: found.start()] + option + rest for option in options for rest in _braces(pattern[found.end() :])]


def _stated(words: str) -> str:
    found = (SPLIT_NAMES.get(word, "") for word in re.split(r"[-_.]", words.lower()))
    return next(filter(None, found), "")


def split_of(tar: Path) -> str:
    """The split that a shard's name states (`train-000001.tar`, `cc3m-validation-07.tar`), else its folder's; or empty."""
    return _stated(tar.stem) or SPLIT_NAMES.get(tar.parent.name.lower(), "")


def name_of(tar: Path) -> str:
    """What tells a shard from the others: its name, with its folder where that states the split (`val/000000`)."""
    return f"{tar.parent.name}/{tar.stem}" if split_of(tar) and not _stated(tar.stem) else tar.stem
