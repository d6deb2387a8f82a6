"""A run is a folder: what was asked for, where it came from, how it went, and where it stands.

    config.json         the whole recipe; what makes this folder a run
    provenance.json     versions, data fingerprint, and every start with its command line
    metrics.jsonl  timings.jsonl  skipped.jsonl  tensorboard/        see `journal.py`
    checkpoints/        see `checkpoint.py`
    model.safetensors   the trained model, once exported
    report.html         for people

The same command on the same folder resumes. A setting that makes it another experiment is refused by name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from multiway.engine import checkpoint
from multiway.engine.agreement import ALONE, on_main
from multiway.engine.background import Background
from multiway.engine.checkpoint import Loaded
from multiway.engine.failure import explained
from multiway.engine.identity import (
    CHECKPOINTS,
    CONFIG,
    PROVENANCE,
    RunError,
    RunMismatch,
    as_kept,
    claim,
    read_config,
    read_object,
    reconcile,
)
from multiway.engine.journal import METRICS, SKIPPED, TIMINGS, Journal, read_metrics
from multiway.engine.lock import RunLock
from multiway.engine.retention import finished
from multiway.world import World

__all__ = ["Run", "RunError", "RunMismatch"]

log = logging.getLogger(__name__)

MODEL, REPORT = "model.safetensors", "report.html"
HURRY = 2.0  # seconds that an unfinished save gets when somebody asks twice to stop


@dataclass
class Run:
    """An open run folder; a context manager that lets go of it, and says in words what memory or a lost rank have ended (`failure.py`).

    Attributes:
        path: of the folder.
        config: the recipe as JSON.
        provenance: `{"data": fingerprint, "starts": [...]}`.
        resumed: True if the folder held a run before.
        world: the ranks that write; only rank 0 touches files.
        journal: None if the run was opened for reading.
    """

    path: Path
    config: dict[str, Any]
    provenance: dict[str, Any]
    resumed: bool = False
    world: World = ALONE
    journal: Journal | None = None
    _lock: RunLock | None = field(default=None, repr=False)
    _background: Background = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._background = Background(self.world)

    @classmethod
    def open(
        cls,
        path: Path | str,
        config: Mapping[str, Any],
        operational: Sequence[str] | set[str] | frozenset[str] = (),
        fingerprint: str = "",
        world: World = ALONE,
        tensorboard: bool = True,
    ) -> Run:
        """Create a run in `path`, or resume the one that is there. Every rank calls it.

        Args:
            path: missing, empty, or a run folder of the same identity, or of one that never made a step.
            config: the whole recipe, as `config.to_json` gives it.
            operational: dotted paths of settings, and of groups of settings, that may change between starts: they
                decide how fast or how long, not what is computed. All others are the run's identity.
            fingerprint: of the data.

        Raises:
            RunMismatch: naming each setting of the identity that differs, with both values.
            RunError: if the path is something else than a run folder.
            RunLocked: if another process is writing it.
        """
        path = Path(path)
        asked = as_kept(config)
        lock: list[RunLock] = []

        def begin() -> tuple[dict[str, Any], bool]:
            lock.append(claim(path))
            return reconcile(path, asked, frozenset(operational), fingerprint, world)

        try:
            provenance, resumed = on_main(world, begin)
            journal = _journal(world, path, tensorboard)
        except BaseException:
            for each in lock:
                each.release()
            raise
        return cls(path, asked, provenance, resumed, world, journal, lock[0] if lock else None)

    @classmethod
    def read(cls, path: Path | str) -> Run:
        """A run for those who only look: no lock, and nothing is written.

        Raises:
            RunError: if `path` is not a run folder.
        """
        path = Path(path)
        if not (path / CONFIG).is_file():
            what = "has no config.json" if path.is_dir() else "is not a folder" if path.exists() else "does not exist"
            raise RunError(f"{path} is not a run folder: it {what}; expected the --out of a `multiway train`")
        return cls(path, read_config(path), read_object(path / PROVENANCE), resumed=True)

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def model_file(self) -> Path:
        """Where the exported model goes."""
        return self.path / MODEL

    @property
    def report_file(self) -> Path:
        """Where the report goes."""
        return self.path / REPORT

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return sorted(step for step, _ in finished(self.checkpoints))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl so far."""
        return self._lines(METRICS)

    def timings(self) -> list[dict[str, Any]]:
        """The lines of timings.jsonl so far."""
        return self._lines(TIMINGS)

    def skipped(self) -> list[dict[str, Any]]:
        """The lines of skipped.jsonl so far: rows that could not be read."""
        return self._lines(SKIPPED)

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        return read_metrics(path) if path.exists() else []

    def save(self, step: int, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any], **retention: Any) -> Path:
        """A checkpoint, with the journal brought to the disk before it. Every rank calls it; see `checkpoint.save`."""
        self.settle()
        return self._save(self.world, step, tensors, scalars, retention)

    def save_later(
        self, step: int, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any], **retention: Any
    ) -> bool:
        """As `save`, but the caller waits only while the tensors are copied; see `engine/background.py`. Every rank calls it.

        It waits for the save before, whose error it raises; the error of this one comes with the next call, or `settle`.

        Returns:
            False if there was no memory for the copies; it has been saved as by `save` then.
        """
        kept = deepcopy(dict(scalars))
        self._writable()
        if self._background.begin(tensors, lambda copies, world: self._save(world, step, copies, kept, retention)):
            return True
        self.save(step, tensors, scalars, **retention)
        return False

    def settle(self) -> None:
        """Wait for the save under way, and raise what became of it. Every rank calls it."""
        self._background.wait()

    @property
    def saving_failed(self) -> bool:
        """Whether the save under way has failed on this rank, so that `settle` will raise."""
        return self._background.failed

    @property
    def copied_bytes(self) -> int:
        """Main memory that `save_later` keeps on this rank."""
        return self._background.copies.bytes

    def _save(
        self,
        world: World,
        step: int,
        tensors: Mapping[str, Tensor],
        scalars: Mapping[str, Any],
        retention: Mapping[str, Any],
    ) -> Path:
        # A checkpoint must not be ahead of its journal. Lines of later steps may come along: a resume cuts them off.
        on_main(world, self._writable().sync)
        return checkpoint.save(self.checkpoints, step, tensors, scalars, world, **retention)

    def restore(self, targets: Mapping[str, Tensor] | None = None, optional: Sequence[str] = ()) -> Loaded | None:
        """Load the newest whole checkpoint and cut the journal back to it; without one, back to nothing.

        Every rank calls it; see `checkpoint.load_latest`.
        """
        journal = self._writable()
        self.settle()
        found = checkpoint.load_latest(self.checkpoints, targets, self.world, optional)
        on_main(self.world, lambda: journal.cut_back(found.step if found else -1))
        return found

    def _writable(self) -> Journal:
        if self.journal is None:
            raise RunError(f"{self.path} was opened for reading (Run.read); use Run.open to write")
        return self.journal

    def close(self, patience: float | None = None) -> None:
        """Wait for the save under way, bring the journal to the disk, and let others write the run.

        Args:
            patience: seconds that the save is given; None waits.

        Raises:
            CheckpointError: if the save failed.
            JournalError: if the journal cannot be written.
        """
        try:
            self._background.wait(patience)
        finally:
            try:
                if self.journal is not None:
                    self.journal.close()
            finally:
                self.journal = None
                if self._lock is not None:
                    self._lock.release()
                    self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(None if isinstance(error, Exception) else HURRY)
        except Exception as other:  # must not hide what ended the run
            log.warning("while closing %s: %s", self.path, other)
        said = explained(error, self.path, self.config, self.steps, self.world.size)
        if said is not None:
            raise said from error


def _journal(world: World, path: Path, tensorboard: bool) -> Journal:
    """A journal on every rank, silent on all but the first."""
    kept: list[Journal] = []
    on_main(world, lambda: kept.append(Journal(path, world, tensorboard)))
    return kept[0] if kept else Journal(path, world, tensorboard)
