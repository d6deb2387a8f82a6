"""Names of shards: patterns to files or URLs, and what a name says."""

from __future__ import annotations

import glob
import re
from pathlib import Path, PurePath

from multiway.data.files import SPLIT_NAMES
from multiway.data.remote import RemoteFile, described, filesystem, is_remote, stamped
from multiway.data.source import DataError

__all__ = ["ShardFile", "expand", "name_of", "split_of"]

ShardFile = Path | RemoteFile
"""Where a shard lies."""

_EXPANSIONS = 100_000


def expand(pattern: str) -> list[ShardFile]:
    """The shards that a pattern names, in order.

    Args:
        pattern: a tar, a folder of tars, or a name with braces (`{000..099}`, `{a,b}`) and wild cards (`*`, `?`); or a URL of the
            same kinds.

    Raises:
        DataError: if a shard that is named does not exist, or none matches.
    """
    pattern = pattern.removeprefix("file://")
    names = _braces(pattern)
    if is_remote(pattern):
        return _expand_urls(pattern, names)
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


def _expand_urls(pattern: str, names: list[str]) -> list[ShardFile]:
    """The same of URLs, with the sizes of the files, in as few questions as the storage allows."""
    files, _ = filesystem(names[0])
    plain = [name for name in names if not _magic(name) and PurePath(name.partition("?")[0]).suffix == ".tar"]
    try:
        there = dict(zip(plain, described(plain), strict=True)) if plain else {}
        found: dict[str, RemoteFile] = {}
        for name in names:
            if name in there:
                file = there[name]
                found |= {file.url: file} if file is not None else {}
                continue
            folder = name.rstrip("/")
            for wild in [name] if _magic(name) else [f"{folder}/*.tar", f"{folder}/*/*.tar"]:
                infos = files.glob(files._strip_protocol(wild), detail=True)
                urls = [files.unstrip_protocol(path) for path in sorted(infos)]
                sized = all(isinstance(info.get("size"), int) for info in infos.values())
                stated = (
                    [stamped(url, infos[path]) for url, path in zip(urls, sorted(infos))] if sized else described(urls)
                )
                here = [file for file in stated if file is not None]
                if here:
                    found |= {file.url: file for file in here}
                    break
    except DataError:
        raise
    except Exception as error:  # every storage's package has its own
        raise DataError(
            f"{RemoteFile(pattern)}: cannot be listed ({type(error).__name__}: {error}); check it"
        ) from error
    missing = [name for name in plain if there[name] is None]
    if missing:
        raise DataError(
            f"{RemoteFile(pattern)}: {len(missing)} of {len(names)} shards do not exist or may not be read, the first "
            f"{RemoteFile(missing[0])}; correct the pattern"
        )
    if not found:
        raise DataError(
            f"{RemoteFile(pattern)}: no shard matches; expected .tar files, as in 's3://bucket/train-{{000000..000099}}.tar'"
        )
    return list(found.values())


def _magic(url: str) -> bool:
    """Whether a URL has wild cards; a question mark of a web address begins its query."""
    return "*" in url.partition("?")[0] if url.startswith("http") else glob.has_magic(url)


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


def split_of(tar: ShardFile) -> str:
    """The split that a shard's name states (`train-000001.tar`, `cc3m-validation-07.tar`), else its folder's; or empty."""
    path = tar.path if isinstance(tar, RemoteFile) else tar
    return _stated(path.stem) or SPLIT_NAMES.get(path.parent.name.lower(), "")


def name_of(tar: ShardFile) -> str:
    """What tells a shard from the others: its name, with its folder where that states the split (`val/000000`)."""
    path = tar.path if isinstance(tar, RemoteFile) else tar
    return f"{path.parent.name}/{path.stem}" if split_of(tar) and not _stated(path.stem) else path.stem
