"""MLflow as a tracker: a server, a database, or a folder, by its tracking URI.

https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html. The client is used rather than `mlflow.start_run`,
which keeps a run open in the process and would meet with whatever else the process tracks.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from multiway.engine.tracking import Status, TrackingError

__all__ = ["MlflowTracker", "legal", "parameters"]

# A request may hold so much (mlflow.utils.validation: MAX_METRICS_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH, MAX_PARAM_VAL_LENGTH;
# 500 characters before MLflow 2.10).
_METRICS, _PARAMETERS, _CHARACTERS = 1000, 100, 500
_ENDS: dict[Status, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def legal(name: str) -> str:
    """A metric's name in the characters that MLflow takes on every system: `R@1` becomes `R_at_1`, others an underscore."""
    return re.sub(r"[^\w\-. /]", "_", name.replace("@", "_at_"), flags=re.ASCII)


def parameters(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a configuration by dotted names, cut to what MLflow takes."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from parameters(value, f"{prefix}{name}.")
        else:
            text = str(value)
            yield legal(prefix + name), text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"


class MlflowTracker:
    """`tracking.Tracker` over one MLflow run, in the experiment `MLFLOW_EXPERIMENT_NAME`, or else `multiway`.

    Infinities are left out: databases have none, and MLflow would draw 1.8e308 in their place.

    Args:
        place: tracking URI or folder; empty for `MLFLOW_TRACKING_URI`, or else MLflow's own default.
        folder: of the run; nothing is written there.
    """

    def __init__(self, place: str, folder: Path) -> None:
        # A folder is meant from where the command was given, a run is gone on with from anywhere.
        local = place and ":" not in place and place != "databricks"
        self._uri = Path(place).resolve().as_uri() if local else place or mlflow.get_tracking_uri()
        self._client: Any = None
        self._id = ""

    @property
    def place(self) -> str:
        """The tracking URI, with the default filled in and without a password, since the run folder keeps it."""
        parts = urlsplit(self._uri)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def start(self, name: str, config: Mapping[str, Any], known: str | None) -> str:
        """Begin the run with the configuration as its parameters, or go on with `known`.

        Raises:
            TrackingError: if the URI is one of a database, for which the small MLflow package lacks the parts.
        """
        try:
            self._client = MlflowClient(tracking_uri=self._uri)
        except ModuleNotFoundError as error:
            raise TrackingError(
                f"{self.place} needs all of MLflow ({error}): pip install mlflow, or name a server: mlflow:http://HOST:PORT"
            ) from error
        if known is not None:
            self._client.update_run(known, status="RUNNING")
            self._id = known
            return known
        if not self._id:  # a start that failed half-way goes on with the run that it made
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "multiway"
            found = self._client.get_experiment_by_name(experiment)
            number = found.experiment_id if found else self._client.create_experiment(experiment)
            self._id = self._client.create_run(number, run_name=name).info.run_id
        settings = [Param(key, value) for key, value in parameters(config)]
        for first in range(0, len(settings), _PARAMETERS):
            self._client.log_batch(self._id, params=settings[first : first + _PARAMETERS])
        return self._id

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """One step, in as few requests as MLflow allows."""
        now = int(time.time() * 1000)
        metrics = [Metric(legal(name), value, now, step) for name, value in numbers.items() if not math.isinf(value)]
        for first in range(0, len(metrics), _METRICS):
            self._client.log_batch(self._id, metrics=metrics[first : first + _METRICS])

    def finish(self, status: Status) -> None:
        """Everything was sent when it was logged; say how the run ended."""
        self._client.set_terminated(self._id, _ENDS[status])
