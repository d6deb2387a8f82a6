"""What is laid side by side of several runs: the settings that differ, and their metrics with the best marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multiway.tasks.task import Metric, Result

__all__ = ["Cell", "Line", "differing", "metric_lines", "of_some_alone"]

_NAMES = {"fusion": "retrieval"}
_ABSENT = "–"
_APART = ("out", "format", "version")
"""Settings that say where a run lies, and not what it is."""


def differing(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[str, ...]]]:
    """Settings that are not alike in all runs: their dotted names, and a value for each run; a dash where it has no such setting."""
    flat = [_flat(config) for config in configs]
    found = []
    for name in dict.fromkeys(name for each in flat for name in each):
        values = tuple(each.get(name, _ABSENT) for each in flat)
        if len(set(values)) > 1 and name.split(".")[0] not in _APART:
            found.append((name, values))
    return found


def of_some_alone(values: Sequence[str]) -> bool:
    """Whether a setting differs only in that some runs do not have it, as happens between methods."""
    return len({value for value in values if value != _ABSENT}) < 2


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = _shown(value) or "none"
    return found


def _shown(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return str(value)
    return ", ".join(" ".join(map(str, each)) if isinstance(each, list | tuple) else str(each) for each in value)


@dataclass(frozen=True)
class Cell:
    """One metric of one run; of a run that has it not all is None.

    Attributes:
        best: whether no other run has a better value.
        even: whether it is not the best, and its interval reaches into the best one's: what could be by chance of the test set.
    """

    metric: Metric | None
    best: bool = False
    even: bool = False


@dataclass(frozen=True)
class Line:
    """One metric over the runs.

    Attributes:
        name: `retrieval: text_retrieval/R@1`.
        nats: whether it is in nats, not a share.
        cells: one for each run.
        lower: whether less is better.
        chance: of the first run that has one.
    """

    name: str
    nats: bool
    cells: tuple[Cell, ...]
    lower: bool
    chance: float | None

    @property
    def shared(self) -> bool:
        """Whether two runs have it, so that there is something to compare."""
        return sum(cell.metric is not None for cell in self.cells) > 1


def metric_lines(results: Sequence[Mapping[str, Result]]) -> list[Line]:
    """Metrics of all tasks over the runs, in the order in which tasks report them; groups of rows and what only describes left out.

    Args:
        results: of each run by task.
    """
    # Searching by matching every pair is the same question, asked of models that know nothing of a picture by itself.
    results = [{_NAMES.get(task, task): result for task, result in run.items()} for run in results]
    names = dict.fromkeys(
        (task, metric)
        for run in results
        for task, result in run.items()
        for metric in result.metrics
        if "[" not in metric
    )
    found = []
    for task, name in names:
        own = [run[task].metrics.get(name) if task in run else None for run in results]
        lower = name.endswith(("loss", "nats", "rank")) and not name.startswith("gain")
        nats = name.endswith(("loss", "nats"))
        # How bad a wrong picture makes it is neither good nor bad.
        judged = not name.startswith("other_picture")
        chance = next((each.chance for each in own if each is not None and each.chance is not None), None)
        found.append(Line(f"{task}: {name}", nats, _marked(own, lower, judged), lower, chance))
    return found


def _marked(own: Sequence[Metric | None], lower: bool, judged: bool) -> tuple[Cell, ...]:
    known = [each for each in own if each is not None]
    if not judged or len(known) < 2:
        return tuple(Cell(each) for each in own)
    best = (min if lower else max)(known, key=lambda each: each.value)
    cells = []
    for each in own:
        top = each is not None and each.value == best.value
        reaches = each is not None and not top and each.low <= best.high and best.low <= each.high
        cells.append(Cell(each, top, reaches))
    return tuple(cells)
