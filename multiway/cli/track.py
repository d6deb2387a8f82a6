"""`multiway track RUN --to wandb mlflow:URI`: send the numbers of a run to trackers, all of them or what they lack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multiway.cli.output import print_json
from multiway.engine.lock import RunLock
from multiway.engine.run import Run
from multiway.engine.tracking import Status, Target, TrackingError, open_tracker, require, targets
from multiway.engine.tracking_delivery import Delivery, Kept

__all__ = ["Track", "run"]


@dataclass(frozen=True)
class Track:
    """Send a run's numbers to trackers.

    Attributes:
        run: its folder.
        to: `wandb`, `wandb:PROJECT`, `wandb:TEAM/PROJECT`, `mlflow` or `mlflow:URI`; several are sent to by turns.
        again: as another tracked run, where there is one already; by default that one gets the lines it lacks.
        json: print one JSON object instead of sentences.
    """

    run: Annotated[str, tyro.conf.Positional]
    to: tuple[str, ...]
    again: bool = False
    json: bool = False


def run(args: list[str]) -> int:
    """Send, and say what was sent.

    Raises:
        TrackingError: for a tracker that is none, is not installed, or refuses; a run that has logged nothing.
        RunLocked: while the run is being trained.
    """
    asked = tyro.cli(Track, args=args, prog="multiway track", config=(tyro.conf.FlagCreatePairsOff,))
    wanted = targets(asked.to)
    if not wanted:
        raise TrackingError("--to names no tracker; expected wandb, wandb:PROJECT, mlflow or mlflow:URI")
    folder = Run.read(Path(asked.run))
    lines = folder.metrics()
    if not lines:
        raise TrackingError(f"{folder.path} has logged nothing yet, so there is nothing to send")
    require(wanted)
    last = int(lines[-1]["step"])
    status: Status = "finished" if last >= folder.config["settings"]["steps"] else "stopped"
    lock = RunLock(folder.path)  # a run in training sends its own numbers
    try:
        sent = [_send(folder, target, last, status, asked.again) for target in wanted]
    finally:
        lock.release()
    if asked.json:
        print_json({"run": asked.run, "sent": sent})
        return 0
    for each in sent:
        what = (
            f"{each['lines']} lines sent"
            if each["lines"]
            else "it had every line already (--again sends them as another run)"
        )
        print(f"{each['to']}, run {each['id']}: {what}")
    return 0


def _send(folder: Run, target: Target, last: int, status: Status, again: bool) -> dict[str, str | int | None]:
    """One tracker's share."""
    delivery = Delivery(folder.path, folder.config, target, open_tracker(target, folder.path), Kept(folder.path), again)
    try:
        count = delivery.bring(last)
        delivery.finish(status)
    except Exception as error:  # a stranger's code: its kinds of errors are its own
        raise TrackingError(
            f"{target} failed after step {max(delivery.sent, 0)} ({type(error).__name__}: {error}); the same command goes on from there"
        ) from error
    return {"to": str(target), "id": delivery.id, "lines": count}
