"""From a run folder's journal to a tracker: every line, in order, once.

How far a tracker has come is kept in `tracking.json`, beside the id of the run there. What it has is therefore always the
beginning of the journal, whatever went wrong on the way, and going on means sending the lines after it: in a moment, when
a killed run is started again, or long after it is over. A run that is resumed computes some steps a second time, to the
same numbers; those are not sent again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiway.engine.journal import METRICS, TIMINGS, Tail, scalars
from multiway.engine.tracking import Status, Target, Tracker

__all__ = ["TRACKING", "Delivery", "Kept", "numbers"]

log = logging.getLogger(__name__)

TRACKING = "tracking.json"


def numbers(line: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> dict[str, float]:
    """The numbers of a journal line by flat names: `loss`, `terms/itc` and, beside it, `terms/itc_chance`.

    No name is another one's folder (`terms/itc` and `terms/itc/chance`), since MLflow keeps names as paths of files.
    """
    found = dict(scalars(line, beside="_"))
    found |= scalars(timing or {}, "timings/", beside="_")
    return {name: float(value) for name, value in found.items() if name not in ("step", "timings/step")}


class Kept:
    """`tracking.json` of a run folder: `{"wandb:PROJECT": {"id": ..., "sent": last step}, ...}`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / TRACKING
        self._one_at_a_time = threading.Lock()  # each tracker has a thread of its own

    def get(self, key: str) -> tuple[str | None, int]:
        """(id, last step that was sent); (None, -1) where there is none. A damaged file counts as none, with a warning."""
        entry = self._read().get(key, {})
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and type(entry.get("sent")) is int:
            return entry["id"], entry["sent"]
        return None, -1

    def set(self, key: str, id: str, sent: int) -> None:
        """Remember; atomic, so that a process that is killed leaves the old file or the new one."""
        with self._one_at_a_time:
            entries = self._read() | {key: {"id": id, "sent": sent}}
            aside = self.path.with_name(f".{TRACKING}.new")
            aside.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
            aside.replace(self.path)

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s): the run is tracked as a new one", self.path, error)
            return {}
        return entries if isinstance(entries, dict) else {}


class Delivery:
    """One tracker, and how much of a run it has.

    Args:
        folder: of the run.
        config: of the run, as JSON.
        target: what the tracker was asked for by; for messages.
        tracker: not started.
        kept: what is known of earlier deliveries.
        again: begin another tracked run, whatever is kept.

    Attributes:
        sent: last step that the tracker took; -1 before the first.
        id: of the run there; None until it has begun.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        target: Target,
        tracker: Tracker,
        kept: Kept,
        again: bool = False,
    ) -> None:
        self.folder, self.config, self.target, self.tracker = folder, config, target, tracker
        self._kept, self._key = kept, f"{target.kind}:{tracker.place}"
        self._known, self.sent = (None, -1) if again else kept.get(self._key)
        self.id: str | None = None
        self._metrics, self._timings = Tail(folder / METRICS), Tail(folder / TIMINGS)
        self._lines: deque[dict[str, Any]] = deque()
        self._seconds: dict[int, dict[str, Any]] = {}

    def bring(self, until: int) -> int:
        """Send the lines up to a step that the tracker lacks; what fails is tried again by the next call.

        Args:
            until: a step all of whose lines are written.

        Returns:
            Number of lines sent.

        Raises:
            Exception: whatever the tracker raises.
        """
        if self.id is None:
            self.id = self.tracker.start(self.folder.absolute().name, self.config, self._known)
            self._kept.set(self._key, self.id, self.sent)
        self._lines.extend(self._metrics.read())
        self._seconds |= {line["step"]: line for line in self._timings.read()}
        count = 0
        try:
            while self._lines and (step := self._lines[0]["step"]) <= until:
                if step > self.sent:
                    self.tracker.log(step, numbers(self._lines[0], self._seconds.get(step)))
                    self.sent = step
                    count += 1
                self._lines.popleft()
                self._seconds.pop(step, None)
        finally:
            if count:
                self._kept.set(self._key, self.id, self.sent)
        return count

    def finish(self, status: Status) -> None:
        """End the tracked run, if it has begun."""
        if self.id is not None:
            self.tracker.finish(status)
