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
from pathlib import Path
from typing import Any

from multiway.config import ConfigError, digest, from_json, to_json

__all__ = ["MANIFEST", "FileRecord", "Manifest", "TensorRecord", "fault", "file_record", "no_room", "write_json"]

MANIFEST = "manifest.json"
FORMAT = 1
_CHUNK = 1 << 22  # bytes read at once while hashing


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
            ValueError: saying what is wrong with it.
        """
        path = folder / MANIFEST
        try:
            body = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ValueError(f"{MANIFEST} is missing: the checkpoint was never finished") from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{MANIFEST} cannot be read: {error}") from error
        if not isinstance(body, dict) or body.pop("digest", None) != digest(body):
            raise ValueError(f"{MANIFEST} does not agree with its own digest: it was changed or damaged")
        if body.get("format") != FORMAT:
            raise ValueError(f"{MANIFEST} has format {body.get('format')!r}; this version reads format {FORMAT}")
        try:
            return from_json(cls, body, MANIFEST)
        except ConfigError as error:
            raise ValueError(str(error)) from error


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
