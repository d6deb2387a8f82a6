"""Whose a bulk folder is: `OUT/bulk.json` names verb, data, model and settings, and another job is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiway.config import differences
from multiway.engine.lock import LOCK, RunLock
from multiway.engine.manifest import write_json

__all__ = ["ABOUT", "FORMAT", "BulkError", "claim", "read_about"]

ABOUT = "bulk.json"
FORMAT = 1


class BulkError(RuntimeError):
    """A bulk folder that is another's, is damaged, or cannot be written."""


def claim(folder: Path, identity: Mapping[str, Any], where: Mapping[str, Any]) -> RunLock:
    """Make the folder ours and lock it, or refuse.

    Args:
        identity: what the parts depend on.
        where: how model and data were named, which may change.

    Raises:
        BulkError: if the folder is another job's, naming what differs, or something else altogether.
        RunLocked: if another process is writing it.
    """
    if folder.exists() and not folder.is_dir():
        raise BulkError(f"{folder} is a file; expected a folder: choose another --out")
    path = folder / ABOUT
    if folder.is_dir() and not path.is_file():
        foreign = sorted(each.name for each in folder.iterdir() if each.name != LOCK and each.name[0] != ".")
        if foreign:
            raise BulkError(
                f"{folder} has no {ABOUT}, so no bulk job wrote it, and it is not empty: it holds {', '.join(foreign[:5])}; "
                "choose another --out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder)
    try:
        asked = json.loads(json.dumps(identity))
        changed = differences(read_about(folder)["identity"], asked) if path.is_file() else []
        if changed:
            raise BulkError(
                f"{folder} holds another job ({'; '.join(map(str, changed))}); choose another --out, or give the same model, "
                "data and settings to go on with it"
            )
        aside = folder / f".{ABOUT}.part"
        write_json(aside, {"format": FORMAT, "identity": asked, "where": dict(where)})
        aside.replace(path)
    except BaseException:
        lock.release()
        raise
    return lock


def read_about(folder: Path) -> dict[str, Any]:
    """`bulk.json`.

    Raises:
        BulkError: if the folder is none of a bulk job.
    """
    path = folder / ABOUT
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BulkError(
            f"{folder} has no {ABOUT}; expected the --out of `multiway embed`, `caption` or `filter`"
        ) from None
    except (OSError, ValueError) as error:
        raise BulkError(f"{path} cannot be read ({error}); restore it, or choose another --out") from error
    if not isinstance(value, dict) or not isinstance(value.get("identity"), dict):
        raise BulkError(f"{path} does not say what the folder belongs to; restore it, or choose another --out")
    if value.get("format") != FORMAT:
        raise BulkError(
            f"{path} has format {value.get('format')!r}, and this version of multiway reads format {FORMAT}; install the version that "
            "wrote it, or choose another --out"
        )
    return value
