"""How verbs print: tables for people, or exactly one JSON object."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiway.tasks.task import Result

__all__ = ["print_json", "print_result"]


def print_json(value: Any) -> None:
    """One JSON object on standard output, and nothing else."""
    json.dump(value, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def print_result(result: Result, console: Console) -> None:
    """A task's metrics with their intervals, sizes and chance values."""
    title = escape(f"{result.task} on {result.data}@{result.split}")
    table = Table("metric", "value", "95 % interval", "n", "chance", title=title)
    for name, metric in result.metrics.items():
        if name.endswith(("loss", "nats")):
            show = "{:.3f}".format
        else:
            show = "{:.1f}".format if name.endswith("rank") else "{:.1%}".format
        chance = "" if metric.chance is None else show(metric.chance)
        table.add_row(
            escape(name), show(metric.value), f"{show(metric.low)} - {show(metric.high)}", str(metric.n), chance
        )
    console.print(table)
