"""Is this folder the run that is asked for? It is made, gone on with, or refused by name.

Settings are of two kinds. Operational ones decide how fast or how long a run computes and may change from one start to
the next; all others, and the data, are its identity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiway.config import Difference, differences, to_json
from multiway.engine.journal import METRICS
from multiway.engine.lock import LOCK, RunLock
from multiway.engine.manifest import write_json
from multiway.engine.provenance import start_record
from multiway.engine.retention import finished, sync_folder, tidy
from multiway.engine.tracking_delivery import TRACKING
from multiway.world import World

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "PROVENANCE",
    "RunError",
    "RunMismatch",
    "as_kept",
    "claim",
    "read_config",
    "read_object",
    "reconcile",
]

CONFIG, PROVENANCE, CHECKPOINTS = "config.json", "provenance.json", "checkpoints"
CONFIG_FORMAT = 1  # of config.json; what was written before there was a number is the same


class RunError(RuntimeError):
    """A folder that is no run, or a damaged one."""


class RunMismatch(RunError):
    """The folder holds a run of another configuration or of other data."""


def claim(path: Path) -> RunLock:
    """Make the folder, refuse one that is somebody else's, and lock it."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; expected a folder for the run: choose another --out")
    if path.is_dir() and not (path / CONFIG).is_file():
        # A start that was killed leaves these before config.json, and nothing else; a run's results without its
        # configuration are not gone on with under a guess.
        begun = {LOCK, PROVENANCE} | (set() if finished(path / CHECKPOINTS) else {CHECKPOINTS})
        foreign = sorted(each.name for each in path.iterdir() if each.name not in begun and each.name[0] != ".")
        if foreign:
            more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
            raise RunError(
                f"{path} has no config.json, so it is not a run folder, and it is not empty: it holds "
                f"{', '.join(foreign[:5])}{more}. Choose another --out, or restore its config.json."
            )
    path.mkdir(parents=True, exist_ok=True)
    return RunLock(path)


def reconcile(
    path: Path, asked: dict[str, Any], operational: frozenset[str], fingerprint: str, world: World
) -> tuple[dict[str, Any], bool]:
    """Compare what is asked with what is there, and write down this start. A run that never made a step may become another."""
    resumed = (path / CONFIG).is_file()
    changed: list[Difference] = []
    provenance: dict[str, Any] = {"data": fingerprint, "starts": []}
    if resumed:
        changed = differences(read_config(path), asked)
        provenance = read_object(path / PROVENANCE)
        identity = [each for each in changed if not _belongs(each.path, operational)]
        if provenance.get("data") != fingerprint:
            identity.append(Difference("data fingerprint", provenance.get("data"), fingerprint))
        if identity and _nothing_learned(path):
            provenance["data"], resumed = fingerprint, False
            (path / TRACKING).unlink(missing_ok=True)  # what a tracker was told of is another run
        elif identity:
            listed = "\n".join(
                f"  {each.path}: {each.before!r} in the folder, {each.after!r} asked for" for each in identity
            )
            raise RunMismatch(
                f"{path} holds another run; what differs is part of its identity:\n{listed}\n"
                "Choose another --out for a new run, or give the old settings (and the old data) to resume this one."
            )
    provenance["starts"] = [*provenance.get("starts", []), start_record(world, [str(each) for each in changed])]
    checkpoints = path / CHECKPOINTS
    checkpoints.mkdir(exist_ok=True)
    tidy(checkpoints)
    # The configuration comes last: its presence is what makes the folder a run.
    _replace_json(path / PROVENANCE, provenance)
    if not resumed or changed:
        _replace_json(path / CONFIG, {"format": CONFIG_FORMAT, **asked})
    return provenance, resumed


def _nothing_learned(path: Path) -> bool:
    """Whether a run never came to its first step, as by an option that its first batch refused: the options may be put right."""
    metrics = path / METRICS
    return not finished(path / CHECKPOINTS) and not (metrics.exists() and metrics.stat().st_size)


def _belongs(path: str, groups: frozenset[str]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:length]) in groups for length in range(1, len(parts) + 1))


def as_kept(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as it will be read back, so that a tuple is no difference to a list."""
    try:
        return json.loads(json.dumps(to_json(dict(config)), allow_nan=False))  # type: ignore[no-any-return]
    except ValueError as error:
        raise RunError(f"the configuration cannot be kept as JSON: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run folder, without the number of its format.

    Raises:
        RunError: if it cannot be read, or is of a format that is not known here.
    """
    config = read_object(path / CONFIG)
    found = config.pop("format", CONFIG_FORMAT)
    if found != CONFIG_FORMAT:
        raise RunError(
            f"{path / CONFIG} has format {found!r}, and this version of multiway reads format {CONFIG_FORMAT}; install the version that "
            "wrote it (provenance.json names it)"
        )
    return config


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the run folder; anything else is a `RunError` with the remedy."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. Restore it from a copy, or choose another --out.") from error
    if not isinstance(value, dict):
        raise RunError(
            f"{path} holds a {type(value).__name__}; expected an object. Restore it, or choose another --out."
        )
    return value


def _replace_json(path: Path, value: Any) -> None:
    aside = path.with_name(f".{path.name}.new")
    write_json(aside, value)
    aside.replace(path)
    sync_folder(path.parent)
