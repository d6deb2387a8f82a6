"""Weights & Biases as a tracker, online or (`WANDB_MODE=offline`) as files for `wandb sync`.

https://docs.wandb.ai/ref/python/init. Its files go into the run folder. Turned off is what would send more than was asked
for, or write over the progress line: the console's text, and differences of the working tree to git's last commit.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from multiway.engine.tracking import Status, TrackingError

__all__ = ["WandbTracker"]


class WandbTracker:
    """`tracking.Tracker` over one W&B run.

    Args:
        place: `PROJECT` or `TEAM/PROJECT`; empty for `WANDB_PROJECT`, or else the project `multiway`.
        folder: where W&B keeps its own files, in `wandb/`.
    """

    def __init__(self, place: str, folder: Path) -> None:
        self.place = place or os.environ.get("WANDB_PROJECT") or "multiway"
        self._folder = folder
        self._run: Any = None
        # Chosen here, so that a second try after a failed start cannot leave two runs.
        self._id = secrets.token_hex(4)

    def start(self, name: str, config: Mapping[str, Any], known: str | None) -> str:
        """Begin the run, or go on with `known`.

        Raises:
            TrackingError: if there is no key to log in with; it would be asked for on the terminal.
        """
        sending = wandb.setup().settings.mode in ("online", "shared")  # from WANDB_MODE, or what `wandb offline` wrote
        if sending and not wandb.login(prompt=False):
            raise TrackingError(
                "there is no API key for W&B; run `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline"
            )
        team, _, project = self.place.rpartition("/")
        self._run = wandb.init(
            entity=team or None,
            project=project,
            name=name,
            config=dict(config),
            id=known or self._id,
            resume="allow",
            allow_val_change=True,  # more steps, another number of ranks: operational settings may change
            reinit="create_new",  # a run that the process has open for something else stays as it is
            dir=str(self._folder),
            settings=wandb.Settings(console="off", disable_git=True, silent=True),
        )
        return str(self._run.id)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """One step. W&B's own process sends it on; this only hands it over."""
        self._run.log(dict(numbers), step=step)

    def finish(self, status: Status) -> None:
        """Wait until everything is sent (or written, offline)."""
        if status == "stopped":  # shown as `preempted` rather than `failed`: it is gone on with
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if status == "finished" else 1)
