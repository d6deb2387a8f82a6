"""Which checkpoint folders exist, how a new one takes its place, and which old ones go.

    checkpoints/
      step-00001000/               a finished checkpoint
      .writing-step-00001200/      being written; worthless after a crash
      .replaced-step-00001000/     moved aside while its successor of the same step takes the name
      .removed-step-00000800/      being deleted
      abandoned-step-00001400/     of a course of training that was left; never loaded, never deleted

A folder gets and loses its final name in one rename, so that at no moment a half-written or half-deleted folder
carries the name of a checkpoint.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path

from multiway.engine.manifest import Manifest

__all__ = ["finished", "name_of", "put_in_place", "retain", "sync_folder", "tidy", "writing"]

log = logging.getLogger(__name__)

_FINISHED = re.compile(r"step-(\d{8,})")
_WRITING, _REPLACED, _REMOVED, _ABANDONED = ".writing-", ".replaced-", ".removed-", "abandoned-"


def name_of(step: int) -> str:
    """Folder name of a step: `step-00001200`."""
    return f"step-{step:08d}"


def writing(root: Path, step: int) -> Path:
    """Where the checkpoint of `step` is written before it gets its name."""
    return root / (_WRITING + name_of(step))


def finished(root: Path) -> list[tuple[int, Path]]:
    """Steps and folders that carry a checkpoint's name, newest first."""
    if not root.is_dir():
        return []
    found = [(match, path) for path in root.iterdir() if (match := _FINISHED.fullmatch(path.name)) and path.is_dir()]
    return sorted(((int(match[1]), path) for match, path in found), reverse=True)


def tidy(root: Path) -> None:
    """Finish what a killed process began: half-written and half-deleted folders go, a moved one comes back."""
    for path in sorted(root.iterdir()):
        if path.name.startswith(_REPLACED):
            original = root / path.name.removeprefix(_REPLACED)
            if original.exists():
                shutil.rmtree(path)
            else:
                path.rename(original)
        elif path.name.startswith((_WRITING, _REMOVED)):
            shutil.rmtree(path)


def put_in_place(root: Path, step: int) -> Path:
    """Give the written checkpoint its name. One of the same step makes way, and comes back if this fails."""
    final, aside = root / name_of(step), root / (_REPLACED + name_of(step))
    if final.exists():
        final.rename(aside)
    writing(root, step).rename(final)
    sync_folder(root)
    if aside.exists():
        shutil.rmtree(aside)
    return final


def retain(root: Path, step: int, keep_last: int, keep_best: int, higher_is_better: bool) -> None:
    """Keep the last and the best checkpoints up to `step`, and delete the others.

    Later ones belong to a course of training that was left by resuming before them (because they were damaged, say).
    They are renamed, so that no resume ever mixes the two, but not deleted.
    """
    present = finished(root)
    for later, path in present:
        if later > step:
            target = _free_name(root / (_ABANDONED + path.name))
            log.warning("%s is later than the step %d just saved; kept as %s, not loaded", path, step, target.name)
            path.rename(target)
    present = [(at, path) for at, path in present if at <= step]
    kept = {path for _, path in present[:keep_last]}
    scored = [(score, at, path) for at, path in present if (score := _score(path)) is not None]
    scored.sort(key=lambda each: (each[0] if higher_is_better else -each[0], each[1]), reverse=True)
    kept |= {path for _, _, path in scored[:keep_best]}
    for _, path in present:
        if path not in kept:
            going = root / (_REMOVED + path.name)
            path.rename(going)
            shutil.rmtree(going)


def _score(path: Path) -> float | None:
    try:
        return Manifest.read(path).score
    except ValueError:
        return None  # damaged: worth nothing as a best one


def _free_name(path: Path) -> Path:
    number = 2
    free = path
    while free.exists():
        free = path.with_name(f"{path.name}-{number}")
        number += 1
    return free


def sync_folder(folder: Path) -> None:
    """Bring renames inside a folder to the disk. Systems that cannot open folders (Windows) have no need to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
