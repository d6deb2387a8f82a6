"""What makes a checkpoint folder whole: a list of its files with size and SHA-256, and of its tensors.

The manifest is written last. A folder without one was never finished; a folder that disagrees with its own was
damaged afterwards. It carries its own digest, so that a flipped bit in it is seen as well.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from multiway.config import digest, to_json

__all__ = [
    "MANIFEST",
    "FileRecord",
    "Manifest",
    "OtherFormat",
    "TensorRecord",
    "fault",
    "file_record",
    "no_room",
    "write_json",
]

MANIFEST = "manifest.json"
FORMAT = 1
_CHUNK = 1 << 22  # bytes read at once while hashing


class OtherFormat(ValueError):
    """A manifest that nothing is wrong with, of a version of multiway that kept checkpoints otherwise."""


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class TensorRecord:
    """Whole shape of a tensor (of all its shards together) and its dtype, as `bfloat16`."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Manifest:
    """Contents of a checkpoint.

    Attributes:
        step: finished optimiser steps.
        score: what retention ranks by; None where there was no (finite) score.
        files, tensors: by name.
        format: version of the layout.
    """

    step: int
    score: float | None
    files: dict[str, FileRecord]
    tensors: dict[str, TensorRecord]
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write `manifest.json` and bring it to the disk."""
        body = to_json(self)
        write_json(folder / MANIFEST, {**body, "digest": digest(body)})

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a checkpoint folder.

        Raises:
            OtherFormat: if it is whole, and another version's.
            ValueError: saying what is wrong with it.
        """
        path = folder / MANIFEST
        try:
            body = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ValueError(f"{MANIFEST} is missing: the checkpoint was never finished") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{MANIFEST} cannot be read: {error}") from error
        if not isinstance(body, dict) or body.pop("digest", None) != digest(body):
            raise ValueError(f"{MANIFEST} does not agree with its own digest: it was changed or damaged")
        if body.get("format") != FORMAT:
            raise OtherFormat(
                f"{MANIFEST} has format {body.get('format')!r}, and this version of multiway reads format {FORMAT}; install the version "
                "that wrote it (the run's provenance.json names it)"
            )
        try:
            return cls._of(**body)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            # Its digest is right, so it was made like this: by another program, or by somebody who means harm.
            raise ValueError(f"{MANIFEST} does not describe a checkpoint: {error}") from error

    @classmethod
    def _of(cls, step: Any, score: Any, files: dict[str, Any], tensors: dict[str, Any], format: int) -> Manifest:
        if type(step) is not int or step < 0 or not (score is None or type(score) in (int, float)):
            raise ValueError(
                f"step is {step!r:.40} and score {score!r:.40}; expected a whole number, and a number or none"
            )
        stored = {name: _file(name, **record) for name, record in files.items()}
        described = {name: _tensor(name, **record) for name, record in tensors.items()}
        needed = sum(prod(each.shape) * getattr(torch, each.dtype).itemsize for each in described.values())
        there = sum(each.bytes for each in stored.values())
        if needed > there:
            raise ValueError(f"its tensors take {needed:,} bytes, its files have {there:,}")
        return cls(step, None if score is None else float(score), stored, described)


def _file(name: str, bytes: Any, sha256: Any) -> FileRecord:
    if name != Path(name).name or "\0" in name:
        raise ValueError(f"the file {name!r:.80} does not lie in the checkpoint's folder")
    if type(bytes) is not int or bytes < 0 or not isinstance(sha256, str):
        raise ValueError(f"size {bytes!r:.40} or hash {sha256!r:.80} of {name} is none")
    return FileRecord(bytes, sha256)


def _tensor(name: str, shape: Any, dtype: Any) -> TensorRecord:
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"{name!r:.80} has shape {shape!r:.80}")
    if not isinstance(dtype, str) or not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"{name!r:.80} has dtype {dtype!r:.40}")
    return TensorRecord(tuple(shape), dtype)


def file_record(path: Path) -> FileRecord:
    """Size and SHA-256 of a file as the disk has it: cached pages are dropped first, where the system can."""
    hashed = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := stream.read(_CHUNK):
            hashed.update(block)
            size += len(block)
    return FileRecord(size, hashed.hexdigest())


def fault(folder: Path, manifest: Manifest, names: list[str]) -> str:
    """What is wrong with the named files of a checkpoint; empty if nothing is.

    Args:
        names: of `manifest.files`; several ranks share the hashing among them.
    """
    # The reader takes every .safetensors file of the folder, so one too many is as bad as one too few.
    for path in sorted(folder.glob("*.safetensors")):
        if path.name not in manifest.files:
            return f"{path.name} does not belong to it"
    for name in names:
        wanted = manifest.files[name]
        try:
            size = (folder / name).stat().st_size
            if size != wanted.bytes:
                return f"{name} has {size:,} bytes instead of {wanted.bytes:,}"
            if file_record(folder / name).sha256 != wanted.sha256:
                return f"{name} has another SHA-256 than when it was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error}"
    return ""


def write_json(path: Path, value: Any) -> None:
    """Write JSON and bring it to the disk before returning."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(value, indent=1, allow_nan=False))
        stream.flush()
        os.fsync(stream.fileno())


def no_room(error: BaseException) -> bool:
    """True for a full disk or an exhausted quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
