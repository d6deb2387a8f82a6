"""The parts of a bulk job in its folder, each of which is whole or not there.

    OUT/manifests/STAGE/000012.json        says that part 12 is finished: its files with rows, size and SHA-256, what was skipped
    OUT/images/000012.npy ...              the files themselves; each verb has its own
    OUT/skipped.jsonl                      pictures that could not be read, once all parts are there

A part's files are written aside, brought to the disk, read back and hashed, then renamed; its manifest comes last. Nothing in them
says when or by which rank they were made, so that the same work gives the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from multiway.config import digest
from multiway.data.parquet import rows_in, write_columns
from multiway.engine.manifest import file_record, no_room, write_json
from multiway.engine.retention import sync_folder
from multiway.workflows.bulk_folder import ABOUT, FORMAT, BulkError

__all__ = [
    "ABOUT",
    "BulkError",
    "Manifest",
    "Part",
    "Place",
    "Skipped",
    "Writer",
    "npy",
    "table",
]

Writer = Callable[[Path], int]
"""Writes one file at the path that it is given and returns how many rows it holds; 0 without a file for none."""


@dataclass(frozen=True)
class Skipped:
    """One picture that was left out.

    Attributes:
        row: of the source.
        key, where: of the row.
        why: it cannot be read.
    """

    row: int
    key: str
    where: str
    why: str


@dataclass
class Part:
    """One part, made but not yet written.

    Attributes:
        number: of its block.
        rows: of the source that it covers.
        files: name within the folder -> writer.
        counts: whatever is worth adding up over the parts.
        skipped: what was left out; a writer may add to it.
    """

    number: int
    rows: int
    files: Mapping[str, Writer]
    counts: dict[str, int] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """A finished part, as its manifest has it.

    Attributes:
        part, rows, counts, skipped: as of `Part`.
        files: name -> `{"rows", "bytes", "sha256"}`.
        model: weights it was made with.
        identity: digest of all that the folder belongs to.
    """

    part: int
    rows: int
    files: dict[str, dict[str, Any]]
    counts: dict[str, int]
    skipped: list[dict[str, Any]]
    model: str
    identity: str
    format: int = FORMAT


@dataclass(frozen=True)
class Place:
    """A stage of a bulk job in its folder.

    Attributes:
        folder: of everything.
        stage: whose parts these are.
        identity: what they depend on, as JSON.
        second: whether it works on what another stage has read.
    """

    folder: Path
    stage: str
    identity: Mapping[str, Any]
    second: bool = False

    @property
    def manifests(self) -> Path:
        """The folder of this stage's manifests."""
        return self.folder / "manifests" / self.stage

    def manifest(self, number: int) -> Path:
        """What says that a part is finished."""
        return self.manifests / f"{number:06d}.json"

    def finished(self, number: int) -> Manifest | None:
        """A part's manifest; None if it has none, or the files are not those that it names.

        Raises:
            BulkError: if it is of another job, or of another version's format.
        """
        path = self.manifest(number)
        try:
            body = json.loads(path.read_bytes())
            whole = isinstance(body, dict) and body.pop("digest", None) == digest(body)
            other = whole and body.get("format") != FORMAT
            found = Manifest(**body) if whole and not other else None
        except (OSError, ValueError, TypeError):
            return None
        if other:
            raise BulkError(
                f"{path} has format {body.get('format')!r}, and this version of multiway reads format {FORMAT}; install the version that "
                "wrote it, or choose another --out"
            )
        if found is None or any(_size(self.folder / name) != file["bytes"] for name, file in found.files.items()):
            return None
        if found.identity != digest(self.identity):
            raise BulkError(f"{path} is of another job than {ABOUT} says; choose another --out, or remove {path}")
        return found

    def keep(self, part: Part) -> Manifest:
        """Write a part, look whether it is what it should be, and put it in its place.

        Raises:
            BulkError: if it cannot be written, or what was written is not what is read back.
        """
        aside = self.folder / f".part-{self.stage}-{part.number:06d}"
        try:
            aside.mkdir(exist_ok=True)
            files = {}
            for name, write in part.files.items():
                path = aside / Path(name).name
                rows = write(path)
                if rows or path.exists():
                    files[name] = _checked(path, rows)
                    (self.folder / name).parent.mkdir(exist_ok=True)
                    path.replace(self.folder / name)
            skipped = [asdict(each) for each in part.skipped]
            model = str(self.identity.get("model", {}).get("weights", ""))
            made = Manifest(part.number, part.rows, files, part.counts, skipped, model, digest(self.identity))
            body = asdict(made)
            write_json(aside / "manifest.json", {**body, "digest": digest(body)})
            for folder in {(self.folder / name).parent for name in files}:
                sync_folder(folder)
            (aside / "manifest.json").replace(self.manifest(part.number))
            sync_folder(self.manifests)
        except OSError as error:
            remedy = "make room" if no_room(error) else "see to it"
            raise BulkError(
                f"{self.folder}: part {part.number} cannot be written ({error.strerror or error}); {remedy} and give the same "
                "command again: finished parts are kept"
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return made

    def clear(self, names: Iterable[str]) -> None:
        """Forget this stage's parts, and the files in these folders."""
        for old in (*self.manifests.glob("*"), *(path for name in names for path in (self.folder / name).glob("*"))):
            old.unlink()

    def tidy(self) -> None:
        """Make the folder of manifests, and remove what a killed process left half written."""
        self.manifests.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(f".part-{self.stage}-*"):
            shutil.rmtree(left, ignore_errors=True)

    def list_skipped(self, found: Sequence[Manifest]) -> None:
        """Write `skipped.jsonl`, a line for each picture that was left out; of a second stage `skipped-STAGE.jsonl`, if there are any."""
        lines = [json.dumps(each, ensure_ascii=False) + "\n" for manifest in found for each in manifest.skipped]
        name = f"skipped-{self.stage}.jsonl" if self.second else "skipped.jsonl"
        if self.second and not lines:
            return (self.folder / name).unlink(missing_ok=True)
        aside = self.folder / f".{name}.part"
        aside.write_text("".join(lines), encoding="utf-8")
        aside.replace(self.folder / name)


def npy(array: np.ndarray) -> Writer:
    """Writes an array as `.npy`."""

    def write(path: Path) -> int:
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        return len(array)

    return write


def table(columns: Mapping[str, Any]) -> Writer:
    """Writes columns as Parquet."""
    return lambda path: write_columns(path, columns)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _checked(path: Path, rows: int) -> dict[str, Any]:
    """A file's record, once it is on the disk and holds what it should."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    found = rows
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        found = len(array) if np.isfinite(array).all() else -1
    elif path.suffix == ".parquet":
        found = rows_in(path)
    if found != rows:
        raise BulkError(f"{path.name} was to hold {rows:,} finite rows and holds {found:,}; is the disk sound?")
    return {"rows": rows, **asdict(file_record(path))}
