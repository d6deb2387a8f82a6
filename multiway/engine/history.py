"""A run's journal as the doctor reads it: series of numbers by name, and what a finding is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Finding", "History", "Series", "Severity"]

Severity = Literal["ok", "note", "warning", "illness"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """One thing the doctor noticed.

    Attributes:
        severity: `illness`: the run is wasted unless something changes; `warning`: probably so; `note`: worth knowing.
        term: what it is about: a loss term, an embedding, `gradient`, `data`, `run`.
        what: the finding in a few words.
        evidence: the numbers behind it, with steps.
        causes: likeliest first.
        tries: what to do, in the order of the causes.
    """

    severity: Severity
    term: str
    what: str
    evidence: str
    causes: tuple[str, ...] = ()
    tries: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Series:
    """One number over the logged steps that have it.

    Attributes:
        steps: (N,) ascending.
        values: (N,) may hold nan and infinities.
    """

    steps: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def finite(self) -> Series:
        """Without nan and infinities."""
        keep = np.isfinite(self.values)
        return Series(self.steps[keep], self.values[keep])

    def since(self, step: float) -> Series:
        """From a step on."""
        keep = self.steps >= step
        return Series(self.steps[keep], self.values[keep])

    def head(self, share: float = 0.1) -> Series:
        """The first lines: a share of them, at least 3."""
        n = max(3, math.ceil(share * len(self)))
        return Series(self.steps[:n], self.values[:n])

    def tail(self, share: float = 0.2) -> Series:
        """The last lines: a share of them, at least 3."""
        n = max(3, math.ceil(share * len(self)))
        return Series(self.steps[-n:], self.values[-n:])

    def median(self) -> float:
        """Over the finite values; nan if there are none."""
        values = self.finite.values
        return float(np.median(values)) if len(values) else math.nan

    def smooth(self, width: int = 5) -> Series:
        """Running median over up to `width` lines ending at each: single outliers vanish, order stays."""
        first = [float(np.median(self.values[: i + 1])) for i in range(min(width - 1, len(self)))]
        if len(self) < width:
            return Series(self.steps, np.asarray(first, dtype=np.float64))
        rest = np.median(np.lib.stride_tricks.sliding_window_view(self.values, width), axis=1)
        return Series(self.steps, np.concatenate([first, rest]))


class History:
    """The lines of metrics.jsonl and timings.jsonl.

    Args:
        metrics: lines in any order; of lines with the same step the last counts (a resumed run writes some again).
        timings: likewise.
        watched: `Method.watched`: numbers in `report` with their bounds.
        context: what the lines don't say; all optional. `steps`: planned steps. `score`: name of the evaluation metric
            that matters most.
    """

    def __init__(
        self,
        metrics: Sequence[Mapping[str, Any]],
        timings: Sequence[Mapping[str, Any]] = (),
        watched: Mapping[str, tuple[float, float]] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        self.metrics = _in_order(metrics)
        self.timings = _in_order(timings)
        self.watched = dict(watched or {})
        self.context = dict(context or {})

    @property
    def last_step(self) -> int:
        """The last step that was logged, 0 if none was."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def loss(self) -> Series:
        """The weighted sum of the terms."""
        return self._series(lambda line: line.get("loss"))

    @property
    def lr(self) -> Series:
        """The learning rate."""
        return self._series(lambda line: line.get("lr"))

    @property
    def grad_norm(self) -> Series:
        """The norm of the whole gradient, before clipping."""
        return self._series(lambda line: line.get("grad_norm"))

    @property
    def terms(self) -> list[str]:
        """Names of all loss terms, in order of appearance."""
        return _names(line.get("terms", {}) for line in self.metrics)

    def term(self, name: str) -> Series:
        """Values of a loss term."""
        return self._series(lambda line: line.get("terms", {}).get(name, {}).get("value"))

    def chance(self, name: str) -> Series:
        """Chance values of a loss term; empty if it has none."""
        return self._series(lambda line: line.get("terms", {}).get(name, {}).get("chance"))

    def formula(self, name: str) -> str:
        """How a term's chance value comes about: `ln 128 = 4.852`, or the number alone."""
        chance = self.chance(name).finite
        formulas = [line["terms"][name].get("formula", "") for line in self.metrics if name in line.get("terms", {})]
        number = f"{chance.values[-1]:.4g}" if len(chance) else "unknown"
        return f"{formulas[-1]} = {number}" if formulas and formulas[-1] else number

    def report(self, name: str) -> Series:
        """A number that the method reports."""
        return self._series(lambda line: line.get("report", {}).get(name))

    @property
    def watched_features(self) -> list[str]:
        """Names of the embeddings whose spread was logged."""
        return [
            name.removesuffix("/std")
            for name in _names(line.get("health", {}) for line in self.metrics)
            if name.endswith("/std")
        ]

    def health(self, name: str) -> Series:
        """A number of `engine.health`."""
        return self._series(lambda line: line.get("health", {}).get(name))

    @property
    def scored(self) -> str:
        """The evaluation metric that matters most: the context's `score`, else the first that was logged; else empty."""
        names = _names(line.get("eval", {}) for line in self.metrics)
        wanted = self.context.get("score")
        return wanted if wanted in names else next(iter(names), "")

    def evaluation(self, name: str, field: str = "value") -> Series:
        """A metric over the evaluations: its `value`, or `low`, `high`, `chance`."""

        def read(line: Mapping[str, Any]) -> Any:
            metric = line.get("eval", {}).get(name)
            return metric.get(field) if isinstance(metric, Mapping) else metric if field == "value" else None

        return self._series(read)

    @cached_property
    def skipped(self) -> list[int]:
        """Steps whose update was left out because loss or gradient was not finite."""
        bad = (
            line["step"]
            for line in self.metrics
            if line.get("skipped")
            or not math.isfinite(_number(line.get("loss")))
            or not math.isfinite(_number(line.get("grad_norm", 0)))
        )
        return [int(step) for step in bad]

    @cached_property
    def warm(self) -> int:
        """The first logged step at half the peak learning rate: before it, little can have been learned.

        While the rate still rises the peak is unknown, and this is the last step.
        """
        lr = self.lr.finite
        if not len(lr):
            return 0
        if len(lr) > 2 and lr.values[-1] > lr.values[-2] > lr.values[-3]:
            return self.last_step
        return int(lr.steps[np.argmax(lr.values >= 0.5 * lr.values.max())])

    @property
    def jump(self) -> float:
        """The greatest loss, if it rose to well above both where it began and where it mostly was; else 0."""
        loss = self.loss.finite
        if not len(loss) or not loss.values[0] > 0:
            return 0.0
        top = float(loss.values.max())
        return top if top / 1.5 > max(loss.values[0], loss.median()) else 0.0

    def _series(self, read: Callable[[Mapping[str, Any]], Any]) -> Series:
        found = [(line["step"], value) for line in self.metrics if (value := read(line)) is not None]
        return Series(
            np.asarray([step for step, _ in found], dtype=np.float64),
            np.asarray([_number(value) for _, value in found], dtype=np.float64),
        )


def _number(value: Any) -> float:
    """Journals write non-finite numbers as words, which `float` reads."""
    return math.nan if value is None else float(value)


def _names(groups: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def _in_order(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    by_step = {int(line["step"]): line for line in lines}
    return [by_step[step] for step in sorted(by_step)]
