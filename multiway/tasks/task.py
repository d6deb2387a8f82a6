"""What a task is, and the form in which every task reports: values with intervals, sizes and chance levels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from multiway.data.examples import Examples
from multiway.data.source import DataError, Source

__all__ = ["Metric", "Result", "Task", "collect", "require_rows"]


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        name: the field's name for it, `text_retrieval/R@1`.
        value: shares lie in [0, 1]; ranks count from 1.
        low, high: ends of its 95 % interval.
        n: number of queries, pictures or questions it is an average over.
        chance: what a model that has learned nothing scores on these data; None where there is no such thing.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    chance: float | None = None

    def __str__(self) -> str:
        chance = "" if self.chance is None else f", chance {self.chance:.4g}"
        return f"{self.name} {self.value:.4g} [{self.low:.4g}, {self.high:.4g}] (n = {self.n}{chance})"


@dataclass(frozen=True)
class Result:
    """What a task found out.

    Attributes:
        task, data, split: names.
        metrics: by name, in the order in which the task reports them.
        details: what happened to each query, a dataclass of the task's own; for reports, not for JSON.
    """

    task: str
    data: str
    split: str
    metrics: dict[str, Metric]
    details: Any = None

    def __str__(self) -> str:
        lines = [f"{self.task} on {self.data}@{self.split}", *map(str, self.metrics.values())]
        return "\n  ".join(lines)

    def to_json(self) -> dict[str, Any]:
        """`{"task", "data", "split", "metrics": {name: {"value", "low", "high", "n", "chance"}}}`."""
        metrics = {}
        for name, metric in self.metrics.items():
            fields = asdict(metric)
            del fields["name"]
            metrics[name] = fields
        return {"task": self.task, "data": self.data, "split": self.split, "metrics": metrics}


class Task(Protocol):
    """Something a model can be measured on.

    Attributes:
        name: what the command line calls it.
        needs: names of the abilities (`abilities.py`) that a model must have.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]: ...

    def run(self, model: Any, source: Any, /) -> Result:
        """Measure.

        Args:
            model: has the methods named by `needs`, taking pictures and strings (`hub.model.Model`, or a stand-in).
            source: one split of one data set: a `Source`, or `Examples` where the task takes these (`example_task.py`).

        Raises:
            LacksAbility: if the model cannot do what is needed.
            DataError: if the data lack what is needed.
        """
        ...


def collect(task: Task, source: Source | Examples[Any], metrics: Iterable[Metric], details: Any = None) -> Result:
    """Drain a task's generator of metrics into a `Result`.

    Raises:
        ValueError: if two metrics share a name, or one is not a finite number.
    """
    found: dict[str, Metric] = {}
    for metric in metrics:
        if metric.name in found:
            raise ValueError(f"task `{task.name}` yields `{metric.name}` twice; give each metric a name of its own")
        if not all(map(math.isfinite, (metric.value, metric.low, metric.high))):
            raise ValueError(
                f"task `{task.name}` measured {metric}; expected finite numbers: leave out what is undefined"
            )
        found[metric.name] = metric
    return Result(task.name, source.name, source.split, found, details)


def require_rows(task: str, source: Source) -> None:
    """Refuse a split that has no rows.

    Raises:
        DataError: naming data and split.
    """
    if len(source) == 0:
        raise DataError(f"task `{task}` was given {source.name}@{source.split}, which has no rows; name another split")
