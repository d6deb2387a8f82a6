"""How well a cleaning went: what was kept, and, where the data know the truth, how much of what was dropped was wrong.

The filter is read as a test for wrong captions: a wrong one that is dropped is a hit. Captions of one picture stand and fall
together, so that pictures are what is resampled for the intervals.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from multiway.tasks import statistics
from multiway.tasks.task import Metric
from multiway.workflows.capfilt_scores import Scored
from multiway.workflows.capfilt_shards import Verdict

__all__ = ["BINS", "Figures", "tally"]

BINS = 20
"""Of the histograms, over match probabilities from 0 to 1."""

_UNKNOWN = 2  # beside 0, false, and 1, true


@dataclass
class _Column:
    """Captions of one origin: the row of each, its match, its truth, and the noise that fell on its row."""

    rows: array[int] = field(default_factory=lambda: array("q"))
    match: array[float] = field(default_factory=lambda: array("d"))
    true: array[int] = field(default_factory=lambda: array("b"))
    noise: array[int] = field(default_factory=lambda: array("b"))


@dataclass
class Figures:
    """A cleaning in numbers.

    Attributes:
        pictures: rows that were read.
        unreadable: rows whose pictures could not be.
        covered: pictures of which a caption is kept.
        metrics: by name; see `tally`.
        histograms: origin -> truth (`true`, `false`, `unknown`) -> captions in each of `BINS` bins of match probability.
    """

    pictures: int = 0
    unreadable: int = 0
    covered: int = 0
    metrics: dict[str, Metric] = field(default_factory=dict)
    histograms: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; metrics in the form that every command prints."""
        metrics = {
            name: {"value": each.value, "low": each.low, "high": each.high, "n": each.n, "chance": each.chance}
            for name, each in self.metrics.items()
        }
        return {
            "pictures": self.pictures,
            "unreadable": self.unreadable,
            "covered": self.covered,
            "metrics": metrics,
            "histograms": self.histograms,
        }


def tally(scored: Iterable[Scored], verdict: Verdict) -> Figures:
    """Count.

    For each origin, `web` and `synthetic`: `kept` is the share that stays. Where the data know the truth, `wrong` is the share
    that is wrong before the filter and `wrong_kept` after it; `precision` is the share of what was dropped that was wrong
    (chance: `wrong`), `recall` the share of what was wrong that was dropped (chance: the share dropped), `lost` the share of
    what was true that was dropped; `recall/KIND` is the recall by the kind of noise. `clean/wrong` is the share of wrong captions
    in what is kept of both.

    Args:
        scored: rows in any order, read once.
        verdict: what stays.
    """
    figures = Figures()
    columns = {"web": _Column(), "synthetic": _Column()}
    kinds: dict[str, int] = {}
    for each in scored:
        if each.unreadable:
            figures.unreadable += 1
            continue
        figures.pictures += 1
        figures.covered += any(verdict.keeps(caption) for caption in each.captions)
        noise = kinds.setdefault(each.noise, len(kinds))
        for caption in each.captions:
            column = columns[caption.origin]
            column.rows.append(each.row)
            column.match.append(caption.match)
            column.true.append(_UNKNOWN if caption.true is None else int(caption.true))
            column.noise.append(noise)
    kept_rows, kept_wrong = [], []
    for origin, column in columns.items():
        if not len(column.rows):
            continue
        rows, match, true, noise_of = (
            np.asarray(values) for values in (column.rows, column.match, column.true, column.noise)
        )
        kept = (match >= verdict.threshold) & (origin in verdict.keep)
        figures.histograms[origin] = {
            name: np.histogram(match[true == code], BINS, (0.0, 1.0))[0].tolist()
            for name, code in (("true", 1), ("false", 0), ("unknown", _UNKNOWN))
            if (true == code).any()
        }
        for metric in _metrics(origin, rows, kept, true):
            figures.metrics[metric.name] = metric
        if origin == "web":
            for metric in _by_kind(rows, kept, true, noise_of, kinds):
                figures.metrics[metric.name] = metric
        known = kept & (true != _UNKNOWN)
        kept_rows.append(rows[known])
        kept_wrong.append(true[known] == 0)
    if sum(map(len, kept_rows)):
        metric = _share("clean/wrong", np.concatenate(kept_wrong), np.concatenate(kept_rows))
        figures.metrics[metric.name] = metric
    return figures


def _metrics(origin: str, rows: np.ndarray, kept: np.ndarray, true: np.ndarray) -> Iterator[Metric]:
    yield _share(f"{origin}/kept", kept, rows)
    known = true != _UNKNOWN
    if not known.any():
        return
    rows, kept, wrong = rows[known], kept[known], true[known] == 0
    yield _share(f"{origin}/wrong", wrong, rows)
    if kept.any():
        yield _share(f"{origin}/wrong_kept", wrong[kept], rows[kept], chance=float(wrong.mean()))
    if not kept.all():
        yield _share(f"{origin}/precision", wrong[~kept], rows[~kept], chance=float(wrong.mean()))
    if wrong.any():
        yield _share(f"{origin}/recall", ~kept[wrong], rows[wrong], chance=float((~kept).mean()))
    if not wrong.all():
        yield _share(f"{origin}/lost", ~kept[~wrong], rows[~wrong], chance=float((~kept).mean()))


def _by_kind(
    rows: np.ndarray, kept: np.ndarray, true: np.ndarray, noise: np.ndarray, kinds: dict[str, int]
) -> Iterator[Metric]:
    """Recall of each kind of noise that the record names."""
    for kind, code in sorted(kinds.items()):
        of = (noise == code) & (true == 0)
        if kind not in ("", "none") and of.any():
            yield _share(f"web/recall/{kind}", ~kept[of], rows[of], chance=float((~kept).mean()))


def _share(name: str, values: np.ndarray, rows: np.ndarray, chance: float | None = None) -> Metric:
    return Metric(name, *statistics.mean(values.astype(np.float64), rows), n=len(values), chance=chance)
