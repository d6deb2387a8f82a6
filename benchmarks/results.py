"""What the benchmarks report, and how a stored report is held against a new one.

A figure is a *ratio* (how many times as long a peer takes for the same work) or a *share* (what a step needs in matrix products over
its time, of the machine's matrix rate in the same process: MFU). Both compare things that ran in turns within one process, so that they
mean something on another day; a time by itself is printed and never a criterion.

How much they move without anything having changed is observed: `baseline` takes several reports of one machine, keeps each figure's
median, and as tolerance of its kind TIMES the deviation of a figure from that median, in relative terms, pooled over all figures and
reports. So few deviations pass that by chance that a fall, once measured again, is one.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Baseline", "Fall", "Result", "baseline", "falls", "read_baseline", "table", "unmeasured"]

Kind = Literal["ratio", "share"]
TIMES, LEAST = 3.0, 0.05


@dataclass(frozen=True)
class Result:
    """One figure.

    Attributes:
        name: `contest/what`, the same in every report.
        kind: more is better of either.
        value: the median over rounds.
        low, high: its 95 % bootstrap interval.
        rounds: how many.
        also: further figures by name, for people.
    """

    name: str
    kind: Kind
    value: float
    low: float
    high: float
    rounds: int
    also: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline:
    """A stored report.

    Attributes:
        values: of each figure by name, its kind and median.
        tolerance: by kind, the share of its value by which a figure may lie below it.
        about: machine, date, versions, number of reports.
    """

    values: dict[str, tuple[Kind, float]]
    tolerance: dict[str, float]
    about: dict[str, Any]

    def write(self, path: Path) -> None:
        """As JSON, a line for each figure."""
        lines = [
            f"    {json.dumps(name)}: {json.dumps([kind, round(value, 4)])}"
            for name, (kind, value) in self.values.items()
        ]
        head = {"about": self.about, "tolerance": {kind: round(value, 4) for kind, value in self.tolerance.items()}}
        body = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items())
        path.write_text("{\n" + body + ',\n  "values": {\n' + ",\n".join(lines) + "\n  }\n}\n", encoding="utf-8")


@dataclass(frozen=True)
class Fall:
    """A figure below its baseline by more than the tolerance."""

    name: str
    before: float
    now: float
    allowed: float

    @property
    def change(self) -> float:
        """Relative; negative."""
        return self.now / self.before - 1.0


def read_baseline(path: Path) -> Baseline:
    """What `Baseline.write` wrote.

    Raises:
        ValueError: if the file is no baseline.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        values = {name: (kind, float(value)) for name, (kind, value) in stored["values"].items()}
        tolerance = {str(kind): float(value) for kind, value in stored["tolerance"].items()}
        about = dict(stored["about"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no baseline ({error!r}); make one with --write-baseline {path}") from error
    odd = {kind for kind, _ in values.values()} - set(tolerance)
    if odd or not all(math.isfinite(value) and value > 0 for _, value in values.values()):
        raise ValueError(f"{path}: figures above 0 and a tolerance for each kind were expected; none for {sorted(odd)}")
    return Baseline(values, tolerance, about)


def baseline(reports: Sequence[Sequence[Result]], about: dict[str, Any]) -> Baseline:
    """A baseline from several reports of the same benchmarks on one machine.

    Raises:
        ValueError: for fewer than two, which say nothing of noise, or reports of different figures.
    """
    if len(reports) < 2:
        raise ValueError(
            f"{len(reports)} report says nothing of how much figures move; measure twice or more (--repeats 3)"
        )
    by_name = [{result.name: result for result in report} for report in reports]
    names = list(by_name[0])
    if any(set(report) != set(names) for report in by_name):
        raise ValueError("the reports are of different figures; measure them alike")
    values: dict[str, tuple[Kind, float]] = {}
    apart: dict[str, list[float]] = {}
    for name in names:
        kind, seen = by_name[0][name].kind, [report[name].value for report in by_name]
        middle = statistics.median(seen)
        values[name] = kind, middle
        # n deviations from their own middle have n - 1 degrees of freedom.
        apart.setdefault(kind, []).append(sum((each / middle - 1.0) ** 2 for each in seen) / (len(seen) - 1))
    tolerance = {kind: max(LEAST, TIMES * math.sqrt(statistics.fmean(found))) for kind, found in apart.items()}
    return Baseline(values, tolerance, about | {"reports": len(reports)})


def falls(results: Sequence[Result], stored: Baseline) -> list[Fall]:
    """The figures that fell, the worst first; those without a baseline are not judged.

    Raises:
        ValueError: if a figure is of another kind than its baseline.
    """
    found = []
    for result in results:
        if result.name not in stored.values:
            continue
        kind, before = stored.values[result.name]
        if kind != result.kind:
            raise ValueError(f"{result.name} is a {result.kind} and its baseline a {kind}; write the baseline anew")
        allowed = before * (1.0 - stored.tolerance[kind])
        # A figure that is no number has fallen.
        if not result.value >= allowed:
            found.append(Fall(result.name, before, result.value, allowed))
    return sorted(found, key=lambda fall: fall.change)


def unmeasured(results: Sequence[Result], stored: Baseline) -> tuple[list[str], list[str]]:
    """Names that only the baseline has, and names that only the results have."""
    measured = {result.name for result in results}
    return [name for name in stored.values if name not in measured], [
        r.name for r in results if r.name not in stored.values
    ]


def table(results: Sequence[Result]) -> str:
    """For people, in Markdown."""
    lines = ["| | figure | 95 % interval | |", "|---|---|---|---|"]
    for result in results:
        numbers = (result.value, result.low, result.high)
        shown = [f"{each:.2f}x" if result.kind == "ratio" else f"{each:.0%}" for each in numbers]
        also = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in result.also.items()
        )
        lines.append(f"| {result.name} | {shown[0]} | {shown[1]} to {shown[2]} | {also} |")
    return "\n".join(lines)


def to_json(results: Sequence[Result], about: dict[str, Any]) -> dict[str, Any]:
    """A report as it is written by `--json`."""
    return {"about": about, "results": [asdict(result) for result in results]}
