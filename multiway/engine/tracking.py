"""Trackers: where a run's numbers can be watched from elsewhere, and the little that one has to be able to do.

`--track wandb`, `--track mlflow:http://tracker:5000`, or both. A tracker is fed from the run folder's own journal
(`tracking_delivery.py`), by a thread of its own (`tracking_thread.py`), so that whatever happens to it, the numbers are
in the folder and training does not wait. The libraries are imported when a tracker is asked for, and not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast
from urllib.parse import urlsplit

__all__ = ["ADAPTERS", "Status", "Target", "Tracker", "TrackingError", "open_tracker", "require", "targets"]

Status = Literal["finished", "stopped", "failed"]
"""How a run ended: all steps done, asked to stop (the same command goes on), or by an error."""

ADAPTERS = {
    "wandb": "multiway.engine.tracking_wandb:WandbTracker",
    "mlflow": "multiway.engine.tracking_mlflow:MlflowTracker",
}
"""Kind of tracker -> its adapter. The kind is also the name of the library and of the extra that installs it."""


class TrackingError(ValueError):
    """A tracker that does not exist, is not installed, or refuses."""


class Tracker(Protocol):
    """What is asked of a tracker. Any method may raise anything; who calls them is prepared for it."""

    @property
    def place(self) -> str:
        """Project or server that holds the run: with the kind, what a run's id belongs to."""
        ...

    def start(self, name: str, config: Mapping[str, Any], known: str | None) -> str:
        """Begin a tracked run, or go on with the one of id `known`; its id. Called again after it failed."""
        ...

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of one step; steps only grow."""
        ...

    def finish(self, status: Status) -> None:
        """Bring everything to where it goes, and say how the run ended."""
        ...


@dataclass(frozen=True)
class Target:
    """A tracker as it is named on the command line.

    Attributes:
        kind: a key of `ADAPTERS`.
        place: W&B's `PROJECT` or `TEAM/PROJECT`, MLflow's tracking URI; empty for the library's own default.
    """

    kind: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" if self.place else self.kind

    @classmethod
    def parse(cls, text: str) -> Target:
        """From `wandb`, `wandb:PROJECT`, `mlflow` or `mlflow:URI`.

        Raises:
            TrackingError: for another kind, nothing after the colon, or a password, which the run folder would keep.
        """
        kind, colon, place = text.partition(":")
        if kind not in ADAPTERS:
            raise TrackingError(
                f"there is no tracker {kind!r}; expected one of: wandb, wandb:PROJECT, wandb:TEAM/PROJECT, mlflow, mlflow:URI"
            )
        if colon and not place:
            raise TrackingError(f"{text!r} names nothing after the colon; leave the colon out for the default")
        if "@" in urlsplit(place).netloc:
            raise TrackingError(
                f"the address for {kind} holds a user name or password, which the run folder would keep and show; set "
                "MLFLOW_TRACKING_URI to it and give `mlflow` alone (for a server also MLFLOW_TRACKING_USERNAME and _PASSWORD)"
            )
        return cls(kind, place)


def targets(texts: Iterable[str]) -> tuple[Target, ...]:
    """What `--track` names.

    Raises:
        TrackingError: for a name that is none, or the same one twice.
    """
    found = tuple(Target.parse(text) for text in texts)
    for each in found:
        if found.count(each) > 1:
            raise TrackingError(f"the tracker {each} is named twice; once is enough")
    return found


def require(asked: Iterable[Target]) -> None:
    """Import the libraries of some trackers, so that one that is missing is found out before a run folder is made.

    Raises:
        TrackingError: naming what to install.
    """
    for kind in dict.fromkeys(each.kind for each in asked):
        try:
            import_module(kind)
        except Exception as error:  # libraries of this size fail in ways of their own, not with ImportError alone
            missing = isinstance(error, ModuleNotFoundError) and error.name == kind
            why = "is not installed" if missing else f"cannot be imported ({type(error).__name__}: {error})"
            raise TrackingError(
                f"--track {kind} needs the package {kind}, which {why}: pip install 'multiway[{kind}]', or leave the option out and "
                f"send the finished run from elsewhere: multiway track RUN --to {kind}"
            ) from error


def open_tracker(target: Target, folder: Path) -> Tracker:
    """The adapter for a target; nothing is sent yet.

    Args:
        target: whose library is there, see `require`.
        folder: of the run; what a tracker writes on this machine goes into it.
    """
    module, _, name = ADAPTERS[target.kind].partition(":")
    return cast(Tracker, getattr(import_module(module), name)(target.place, folder))
