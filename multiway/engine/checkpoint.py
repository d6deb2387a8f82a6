"""Checkpoints that are whole or not there: written aside, verified, renamed; checked again before they are believed.

A checkpoint `checkpoints/step-00001200/` holds

    shard-00001-model-00001-of-00001.safetensors   tensors, by `torch.distributed.checkpoint`; one set per writing rank
    state.json                                     scalars
    manifest.json                                  size and SHA-256 of each file, shape and dtype of each tensor

and nothing pickled. Every rank writes what it alone has (shards of a DTensor); of what all ranks have, rank 0 writes
its own. The folder has to lie on storage that every rank sees.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from multiway.engine.agreement import ALONE, on_all, on_main
from multiway.engine.manifest import Manifest, OtherFormat, TensorRecord, fault, file_record, no_room, write_json
from multiway.engine.plain import from_plain, to_plain
from multiway.engine.retention import finished, name_of, put_in_place, retain, sync_folder, tidy, writing
from multiway.engine.shards import bytes_of, incomplete, read_shards, record_of, stage, verified, write_shards
from multiway.world import World

__all__ = ["CheckpointError", "Loaded", "load_into", "load_latest", "read", "save"]

log = logging.getLogger(__name__)

STATE = "state.json"
_SLACK_BYTES = 1 << 16  # headers, manifest and folder entries, for the estimate of what a checkpoint takes


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or none that can be used. Names path and remedy."""


@dataclass(frozen=True)
class Loaded:
    """What was loaded, and what was passed over.

    Attributes:
        path, step: of the checkpoint.
        tensors: the targets, now filled; without targets, new CPU tensors, whole.
        scalars: as given to `save`, tuples having become lists.
        rejected: newer checkpoints that are damaged, with the reason.
    """

    path: Path
    step: int
    tensors: dict[str, Tensor]
    scalars: dict[str, Any]
    rejected: tuple[tuple[Path, str], ...] = ()


def save(
    root: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    scalars: Mapping[str, Any],
    world: World = ALONE,
    *,
    keep_last: int = 2,
    keep_best: int = 1,
    score: float | None = None,
    higher_is_better: bool = True,
) -> Path:
    """Write `root/step-<step>` and retire old ones. Every rank calls it; earlier checkpoints stay untouched until the new one stands.

    Args:
        root: the folder `checkpoints/` of a run.
        step: finished optimiser steps.
        tensors: by name: plain tensors, the same on every rank (rank 0's are written) or under names that one rank
            alone has, and DTensors. Tensors that share memory are written once each.
        scalars: JSON values; NaN and infinities are allowed.
        keep_last: number of latest checkpoints to keep, at least 1.
        keep_best: number of best ones by score to keep besides.
        score: of this checkpoint; None if it was not measured.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: on every rank, if it cannot be written (a full disk, say). Nothing half-written remains.
        TypeError: for a scalar that JSON lacks, or a tensor that is not dense.
    """
    if keep_last < 1:
        raise ValueError(f"keep_last is {keep_last}; expected at least 1, or no run could be resumed")
    staged: dict[str, Tensor] = {}

    def describe() -> dict[str, TensorRecord]:
        staged.update(stage(tensors))
        return {name: record_of(tensor) for name, tensor in staged.items()}

    folder = writing(root, step)
    state = to_plain(dict(scalars), "scalars")
    table: dict[str, TensorRecord] = {}
    for own in on_all(world, describe):
        clash = [name for name in own if table.get(name, own[name]) != own[name]]
        if clash:
            raise CheckpointError(
                f"ranks differ in shape or dtype of {', '.join(clash)}; give each rank's its own name"
            )
        table |= own
    needed = sum(bytes_of(record) for record in table.values()) + len(json.dumps(state)) + _SLACK_BYTES
    try:
        on_main(world, lambda: _make_room(root, folder, needed))
        write_shards(folder, staged, table, world)
        records = on_all(world, lambda: verified(folder, staged, world.rank))
        rank_files = {name: record for own in records for name, record in own.items()}
        known = None if score is None or not isfinite(score) else float(score)
        on_main(world, lambda: _complete(folder, state, Manifest(step, known, rank_files, table)))
        path = on_main(world, lambda: put_in_place(root, step))
    except (OSError, CheckpointException) as error:
        cause = _cause(error)
        _clear(root, world)
        if not isinstance(cause, Exception):
            raise cause from error  # Ctrl-C comes wrapped as a failure to save
        raise CheckpointError(_explain(cause, root / name_of(step), needed)) from cause
    except BaseException:
        _clear(root, world)
        raise

    def retire() -> None:
        try:
            retain(root, step, keep_last, keep_best, higher_is_better)
        except OSError as error:  # the new one stands; an old one too many is no reason to stop training
            log.warning("old checkpoints in %s could not be removed: %s", root, error)

    on_main(world, retire)
    return path


def load_latest(
    root: Path, targets: Mapping[str, Tensor] | None = None, world: World = ALONE, optional: Sequence[str] = ()
) -> Loaded | None:
    """Load the newest checkpoint that is whole. Every rank calls it, and all use the same one.

    Damaged ones are passed over with a warning and listed in `Loaded.rejected`.

    Args:
        root: the folder `checkpoints/` of a run.
        targets: tensors to fill in place; None reads everything into new CPU tensors on every rank.
        optional: see `load_into`.

    Returns:
        None if there is no checkpoint yet.

    Raises:
        CheckpointError: if there are checkpoints and all are damaged, the newest that is not is of another version's format, or the names
            or shapes do not fit the targets.
    """
    rejected: list[tuple[Path, str]] = []
    for step, path in on_main(world, lambda: finished(root)):
        manifest, why = _examine(path, world)
        if manifest is None:
            rejected.append((path, why))
            continue
        if world.is_main:
            for bad, reason in rejected:
                log.warning("checkpoint %s is damaged (%s); going back to %s", bad, reason, path)
        tensors, scalars = _load(path, manifest, targets, world, optional)
        return Loaded(path, step, tensors, scalars, tuple(rejected))
    if rejected:
        listed = "\n".join(f"  {path}: {why}" for path, why in rejected)
        raise CheckpointError(
            f"every checkpoint in {root} is damaged:\n{listed}\nRestore one from a copy, or start again in another folder."
        )
    return None


def load_into(targets: Mapping[str, Tensor], path: Path, world: World = ALONE, optional: Sequence[str] = ()) -> dict:
    """Fill tensors in place from one checkpoint, after checking it. Every rank calls it.

    Args:
        targets: by name; DTensors receive their shards, whatever number of ranks wrote them.
        path: folder of the checkpoint.
        optional: prefixes of names that may be missing on either side (states that one rank alone has, when the
            number of ranks changed). All other names have to agree.

    Returns:
        The scalars.

    Raises:
        CheckpointError: if it is damaged, or names, shapes or dtypes differ; all that differ are listed.
    """
    return _load(path, _whole(path, world), targets, world, optional)[1]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors (whole, on the CPU) and scalars of one checkpoint, after checking it.

    Raises:
        CheckpointError: if it is damaged.
    """
    return _load(path, _whole(path, ALONE), None, ALONE, ())


def _load(
    path: Path, manifest: Manifest, targets: Mapping[str, Tensor] | None, world: World, optional: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if targets is None:
        targets = {
            name: torch.empty(record.shape, dtype=getattr(torch, record.dtype))
            for name, record in manifest.tensors.items()
        }
    else:
        complaints = on_all(world, lambda: _disagreement(targets, manifest, optional))
        wanted = set().union(*on_all(world, lambda: list(targets)))
        unexpected = [n for n in manifest.tensors if n not in wanted and not n.startswith(tuple(optional))]
        found = [f"unexpected (in the checkpoint, wanted by nobody): {', '.join(unexpected)}"] if unexpected else []
        found += sorted({line for lines in complaints for line in lines})
        if found:
            raise CheckpointError(
                f"checkpoint {path} does not fit what it is loaded into:\n  " + "\n  ".join(found) + "\n"
                "Build the model and optimiser with the configuration that wrote it."
            )
    wanted_here = {name: tensor for name, tensor in targets.items() if name in manifest.tensors}
    try:
        on_all(world, lambda: _fits(path, manifest))
        read_shards(path, wanted_here, world)
        scalars = on_main(world, lambda: from_plain(json.loads((path / STATE).read_bytes())))
    except (CheckpointException, SafetensorError, OSError, ValueError, RecursionError, MemoryError) as error:
        # Its hashes are right, so no disk did this: it was made by another program, or changed since it was examined.
        raise CheckpointError(
            f"checkpoint {path} cannot be read: {str(_cause(error)).splitlines()[0]:.300}. Use another one of the same run."
        ) from error
    if not isinstance(scalars, dict):
        raise CheckpointError(
            f"{path / STATE} holds a {type(scalars).__name__}; expected an object. Use another checkpoint."
        )
    return dict(targets), scalars


def _fits(path: Path, manifest: Manifest) -> None:
    """Headers that lie, refused by the library that checks them, before a reader that believes them allocates what they say."""
    for name in manifest.files:
        if name.endswith(".safetensors"):
            with safe_open(path / name, framework="pt") as stored:
                for key in stored.keys():  # noqa: SIM118 (not a dict)
                    if key not in manifest.tensors:
                        raise ValueError(f"{name} holds {key!r:.80}, of which the manifest knows nothing")


def _disagreement(targets: Mapping[str, Tensor], manifest: Manifest, optional: Sequence[str]) -> list[str]:
    missing = [n for n in targets if n not in manifest.tensors and not n.startswith(tuple(optional))]
    lines = [f"missing in the checkpoint: {', '.join(missing)}"] if missing else []
    for name, target in targets.items():
        stored = manifest.tensors.get(name)
        if stored is not None and stored != record_of(target):
            wanted = record_of(target)
            lines.append(f"{name} is {stored.dtype} {stored.shape} there; expected {wanted.dtype} {wanted.shape}")
    return lines


def _whole(path: Path, world: World) -> Manifest:
    manifest, why = _examine(path, world)
    if manifest is None:
        raise CheckpointError(f"checkpoint {path} cannot be used: {why}. Use another one of the same run.")
    return manifest


def _examine(path: Path, world: World) -> tuple[Manifest | None, str]:
    """The manifest if the folder agrees with it, else what is wrong. The ranks share the hashing."""

    def opened() -> Manifest | str:
        try:
            return Manifest.read(path)
        except OtherFormat as error:  # no damage: an older one in its place would undo what a newer version has trained
            raise CheckpointError(f"checkpoint {path}: {error}") from error
        except ValueError as error:
            return str(error)

    manifest = on_main(world, opened)
    if isinstance(manifest, str):
        return None, manifest
    names = sorted(manifest.files)[world.rank :: world.size]
    faults = [why for why in on_all(world, lambda: fault(path, manifest, names)) if why]
    return (None, faults[0]) if faults else (manifest, "")


def _complete(folder: Path, state: Any, manifest: Manifest) -> None:
    """Scalars and manifest, the latter last, once every tensor is found to be there in full."""
    lacking = incomplete(folder, manifest.tensors)
    if lacking:
        raise OSError(f"parts of {', '.join(lacking)} are missing in {folder}; does every rank see the same folder?")
    write_json(folder / STATE, state)
    manifest.files[STATE] = file_record(folder / STATE)
    if json.loads((folder / STATE).read_bytes()) != state:
        raise OSError(f"{STATE} reads back other values than were written; check the disk")
    manifest.write(folder)
    if Manifest.read(folder) != manifest:
        raise OSError("the manifest reads back other values than were written; check the disk")
    sync_folder(folder)


def _make_room(root: Path, folder: Path, needed: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    tidy(root)
    free = shutil.disk_usage(root).free
    if free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    folder.mkdir()


def _clear(root: Path, world: World) -> None:
    if world.is_main and root.is_dir():
        with suppress(OSError):  # what stands in the way of clearing up must not hide why saving failed
            tidy(root)


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, CheckpointException):
        return next(iter(error.failures.values()))[0]
    return error


def _explain(cause: Exception, path: Path, needed: int) -> str:
    intact = "What was half-written is removed; earlier checkpoints are intact."
    if no_room(cause):
        free = shutil.disk_usage(path.parent).free
        return (
            f"no room for checkpoint {path}: it takes about {needed:,} bytes and {free:,} are free. {intact} "
            "Free some space, keep fewer checkpoints, or use another disk; then resume."
        )
    return f"checkpoint {path} could not be written: {type(cause).__name__}: {cause}. {intact}"
