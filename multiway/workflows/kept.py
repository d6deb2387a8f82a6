"""What a tuned run has kept: the run it began from and the tuned one, measured on the same pictures and captions.

Tuning for one task forgets others (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, arXiv 2109.01903). What was
there before is measured before and after by the tasks that both models are able to do: retrieval, zero-shot classification,
matching, hidden words, the likelihood of captions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from multiway.abilities import abilities_of
from multiway.data.source import DataError, Source
from multiway.hub.model import Model
from multiway.tasks import TASKS, Result
from multiway.tasks.task import Metric
from multiway.workflows.encoded_once import EncodedOnce

__all__ = ["KEPT_TASKS", "Kept", "kept"]

KEPT_TASKS: dict[str, re.Pattern[str]] = {
    "retrieval": re.compile(r"_retrieval/R@[15]$"),
    "zeroshot": re.compile(r"^accuracy/top-[15]$"),
    "matching": re.compile(r"/accuracy$"),
    "masked-words": re.compile(r"^with_picture/"),
    "captioning": re.compile(r"^with_picture/nats$"),
}
"""Task -> which of its metrics are shown."""


@dataclass(frozen=True)
class Kept:
    """One figure before and after.

    Attributes:
        task, data: which task, on what.
        before, after: of the run that was tuned, and tuned.
        unit: `nats`, of which fewer are better, or empty for shares.
    """

    task: str
    data: str
    before: Metric
    after: Metric
    unit: str = ""

    @property
    def verdict(self) -> str:
        """`yes` if the tuned run is better by more than both intervals, `no` if it is worse, empty if that cannot be told."""
        up = self.after.low > self.before.high
        down = self.after.high < self.before.low
        if not up and not down:
            return ""
        return "yes" if up != (self.unit == "nats") else "no"


def kept(before: Model, after: Model, source: Source) -> Iterator[Kept]:
    """What both models can do without a head, measured on one split.

    Args:
        before: the run that was tuned.
        after: tuned; it still does what the run did.
        source: pictures with captions, and for `zeroshot` with classes.

    Yields:
        Figures in the order of `KEPT_TASKS`; a task for which the data lack something is left out.
    """
    able = {*abilities_of(before)} & {*abilities_of(after)}
    models = [EncodedOnce(before, source), EncodedOnce(after, source)]
    # Accuracy over one class says nothing.
    labelled = len({source.row(number).label for number in range(len(source))} - {-1}) > 1
    for name, shown in KEPT_TASKS.items():
        if not able.issuperset(TASKS[name].needs) or (name == "zeroshot" and not labelled):
            continue
        try:
            first, second = (once.run(TASKS[name]) for once in models)
        except DataError:  # captions without a word that could be hidden, say
            continue
        yield from _both(first, second, shown)


def _both(before: Result, after: Result, shown: re.Pattern[str]) -> Iterator[Kept]:
    for name, metric in after.metrics.items():
        if shown.search(name) and name in before.metrics:
            unit = "nats" if name.endswith("nats") else ""
            yield Kept(after.task, f"{after.data}@{after.split}", before.metrics[name], metric, unit)
