"""The course of a run as lines of JSON, and the same as TensorBoard events.

    metrics.jsonl   values only, so that a replay of the same steps writes the same bytes
    timings.jsonl   what cannot repeat: seconds and samples per second
    skipped.jsonl   rows that could not be read

Every line has a `step`, the number of finished optimiser steps. On resume all files are cut back to the checkpoint's
step, and what follows is written again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from multiway.engine.agreement import ALONE
from multiway.engine.plain import from_plain, to_plain
from multiway.engine.retention import sync_folder
from multiway.world import World

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "METRICS",
    "SKIPPED",
    "TENSORBOARD",
    "TIMINGS",
    "Journal",
    "JournalError",
    "Tail",
    "read_metrics",
    "scalars",
]

log = logging.getLogger(__name__)

METRICS, TIMINGS, SKIPPED, TENSORBOARD = "metrics.jsonl", "timings.jsonl", "skipped.jsonl", "tensorboard"


class JournalError(RuntimeError):
    """A journal file that cannot be written or read. Names file, line and remedy."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal file (any of the three), with "nan", "inf" and "-inf" as floats again.

    A last line without its newline is what a killed process left of it, or one being written now; it is left out.

    Raises:
        JournalError: for a line in the middle that is not JSON, or lacks its step: the file was damaged; or no file.
    """
    if not path.is_file():
        raise JournalError(f"{path} does not exist; expected {METRICS}, {TIMINGS} or {SKIPPED} of a run folder")
    return [from_plain(_parse(path, number, line)) for number, line in enumerate(_lines(path), start=1)]


class Tail:
    """A journal file read while it is written: each call gives the lines that have been added since the one before.

    Args:
        path: of the file, which need not exist yet; it must not be cut back meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._number = path, 0, 0

    def read(self) -> list[dict[str, Any]]:
        """Lines as `read_metrics` gives them.

        Raises:
            JournalError: for a line that is not JSON, or lacks its step.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            added = stream.read()
        whole = added[: added.rfind(b"\n") + 1]
        lines = [
            from_plain(_parse(self._path, number, line))
            for number, line in enumerate(whole.splitlines(keepends=True), start=self._number + 1)
        ]
        self._offset += len(whole)
        self._number += len(lines)
        return lines


class Journal:
    """Appends to the journal files of a run folder. Ranks other than 0 only report rows that they could not read.

    Args:
        folder: of the run; it has to exist.
        tensorboard: write events as well.
    """

    def __init__(self, folder: Path, world: World = ALONE, tensorboard: bool = True) -> None:
        self.folder = folder
        self._writes = world.is_main
        self._events = tensorboard and world.is_main
        self._purge_step: int | None = None
        self._board: SummaryWriter | None = None
        self._rank = world.rank
        self._files = {name: _Lines(folder / name) for name in (METRICS, TIMINGS)} if self._writes else {}

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl: `{"step": step, **values}`. NaN and infinities become words.

        Raises:
            JournalError: if it cannot be written, or `step` lies before the last line's.
            TypeError: for a value that JSON lacks.
        """
        if self._writes:
            self._files[METRICS].append(step, values)
            self._draw(step, "", values)

    def time(self, step: int, timings: Mapping[str, float]) -> None:
        """One line of timings.jsonl: `step_seconds`, `data_seconds`, `samples_per_second` of the step; since the line before
        `loop_seconds`, and of these `checkpoint_seconds` in which the loop stood still for a checkpoint."""
        if self._writes:
            self._files[TIMINGS].append(step, timings)
            self._draw(step, "timings/", timings)

    def skip(self, step: int, messages: Iterable[str]) -> None:
        """One line of skipped.jsonl per row that this rank could not read; every rank has rows of its own."""
        lines = [{"step": step, "rank": self._rank, "why": message} for message in messages]
        if lines:
            path = self.folder / SKIPPED
            try:
                # Appended in one piece, so that the lines of several ranks cannot mix.
                with path.open("ab", buffering=0) as stream:
                    stream.write(b"".join(map(_encode, lines)))
            except OSError as error:
                raise _cannot_write(path, step, error) from error

    def cut_back(self, step: int) -> int:
        """Drop every line after `step`, and hide the TensorBoard events after it. Atomic for each file.

        Returns:
            Number of lines dropped from metrics.jsonl.
        """
        if not self._writes:
            return 0
        self._close_board()
        self._purge_step = step + 1
        _cut(self.folder / SKIPPED, step)
        self._files[TIMINGS].cut_back(step)
        return self._files[METRICS].cut_back(step)

    def sync(self) -> None:
        """Bring all lines to the disk; called before a checkpoint, which must not be ahead of its journal.

        May be called in another thread than the one that adds lines; what is added meanwhile may come along or not.

        Raises:
            JournalError: if the disk does not take them.
        """
        for lines in self._files.values():
            lines.sync()
        try:
            if self._board is not None:
                self._board.flush()
        except OSError as error:
            self._without_events(error)

    def close(self) -> None:
        """Bring everything to the disk and let go of the files."""
        try:
            self.sync()
        finally:
            for lines in self._files.values():
                lines.close()
            self._files = {}
            self._writes = False
            self._close_board()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _draw(self, step: int, prefix: str, values: Mapping[str, Any]) -> None:
        if not self._events:
            return
        try:
            if self._board is None:
                # Imported on first use: TensorBoard takes its time, and readers of a journal have no need of it.
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(self.folder / TENSORBOARD), purge_step=self._purge_step)
            for name, value in scalars(to_plain(dict(values))):
                self._board.add_scalar(prefix + name, value, step)
        except OSError as error:
            self._without_events(error)

    def _without_events(self, error: OSError) -> None:
        # The same numbers are in the .jsonl files; pictures of them are not worth stopping for.
        if self._events:
            log.warning("no more TensorBoard events in %s: %s", self.folder / TENSORBOARD, error)
        self._events = False

    def _close_board(self) -> None:
        board, self._board = self._board, None
        try:
            if board is not None:
                board.close()
        except OSError as error:
            self._without_events(error)


class _Lines:
    """One append-only file of JSON lines whose steps never decrease."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        kept = _lines(self.path) if self.path.exists() else []
        self._last = _parse(self.path, len(kept), kept[-1])["step"] if kept else -1
        self._end = sum(map(len, kept))
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.ftruncate(self._descriptor, self._end)  # a torn last line would spoil the next one

    def append(self, step: int, values: Mapping[str, Any]) -> None:
        if step < self._last:
            raise JournalError(
                f"step {step} after step {self._last} in {self.path}; steps must not decrease: cut_back({step - 1}) first"
            )
        line = _encode({"step": step, **to_plain(dict(values), self.path.name)})
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._descriptor, line[written:], self._end + written)
        except OSError as error:
            os.ftruncate(self._descriptor, self._end)  # half a line is worse than none
            raise _cannot_write(self.path, step, error) from error
        self._end += len(line)
        self._last = step

    def cut_back(self, step: int) -> int:
        self.close()
        try:
            return _cut(self.path, step)
        finally:
            self._open()

    def sync(self) -> None:
        step = self._last
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise _cannot_write(self.path, step, error) from error

    def close(self) -> None:
        os.close(self._descriptor)


def _cut(path: Path, step: int) -> int:
    """Replace a file by its lines up to `step`, a torn last one dropped as well; the number of whole lines dropped."""
    if not path.exists():
        return 0
    lines = _lines(path)
    kept = [line for number, line in enumerate(lines, start=1) if _parse(path, number, line)["step"] <= step]
    if sum(map(len, kept)) < path.stat().st_size:
        aside = path.with_name(f".{path.name}.cut")
        with aside.open("wb") as stream:
            stream.writelines(kept)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    return len(lines) - len(kept)


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _cannot_write(path: Path, step: int, error: OSError) -> JournalError:
    return JournalError(
        f"{path} cannot be written at step {step}: {error}. Free some space or check the disk, then resume."
    )


def _lines(path: Path) -> list[bytes]:
    """Complete lines with their newlines; a torn last one is left out."""
    lines = path.read_bytes().splitlines(keepends=True)
    return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise JournalError(
            f"{path}, line {number} is not JSON: {error}. Remove that line, or restore the file."
        ) from error
    if not isinstance(value, dict) or type(value.get("step")) is not int:
        raise JournalError(f"{path}, line {number} has no whole number `step`. Remove that line, or restore the file.")
    return value


def scalars(values: Mapping[str, Any], prefix: str = "", beside: str = "/") -> Iterable[tuple[str, float]]:
    """Numbers of a line under flat names: `terms/itc`, `terms/itc/chance`, `eval/text_retrieval/R@1`.

    Args:
        values: as JSON.
        prefix: of every name.
        beside: what stands between the name of a value and of what is said of it.
    """
    for name, value in values.items():
        if isinstance(value, dict):
            # {"value": ..., ...} is one curve with side information, drawn under its own name.
            yield from scalars(value, f"{prefix}{name}{beside if 'value' in value else '/'}", beside)
        elif isinstance(number := from_plain(value), (int, float)):
            yield (prefix.removesuffix(beside) if name == "value" else prefix + name), number
