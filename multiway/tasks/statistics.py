"""Confidence intervals for the metrics of a test set: the percentile bootstrap, and Wilson's interval for shares.

What is resampled is the *unit* that was drawn when the test set was made. Five captions of one picture succeed and
fail together, so they are one unit, not five: resampling them one by one would give intervals that are too narrow.

Resampling n units with replacement means drawing how often each occurs from a multinomial distribution. So nothing is
copied: every statistic here is a function of those counts, for all resamples at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Interval", "balanced_mean", "joint_mean", "mean", "median", "wilson"]

LEVEL = 0.95
RESAMPLES = 2000
_CHUNK = 4_000_000  # counts held at once, about 32 MB

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Interval(NamedTuple):
    """An estimate with the ends of its confidence interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a share of `n` independent trials (Wilson 1927; Brown, Cai, DasGupta 2001).

    Unlike the bootstrap it has a width at 0 of n and n of n.

    Raises:
        ValueError: without trials, or for successes outside [0, n].
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(
            f"Wilson's interval was given {successes} successes of {n}; expected 0 <= successes <= n and n >= 1"
        )
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def mean(
    values: ArrayLike,
    units: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of `values` with its bootstrap percentile interval (Efron & Tibshirani 1993, chapter 13).

    Where all values are 0, or all are 1, resampling has nothing to vary and would claim certainty; the interval is then
    Wilson's, over the units.

    Args:
        values: (n,) one per query; shares of hits lie in [0, 1].
        units: (n,) number of the unit that each query belongs to; by default each is its own.

    Raises:
        ValueError: without values, or if `units` has another length.
    """
    return joint_mean([values], [units], level=level, resamples=resamples, seed=seed)


def joint_mean(
    parts: Sequence[ArrayLike],
    units: Sequence[ArrayLike | None],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The average of several means over the *same* units, which are resampled together.

    Recall from picture to text and from text to picture rise and fall with the same pictures; drawing the two apart
    would pretend that their errors cancel.

    Args:
        parts: arrays of values, each averaged by itself.
        units: for each part, the unit of each value, all numbered alike.
    """
    if len(parts) != len(units) or not parts:
        raise ValueError(
            f"given {len(parts)} arrays of values and {len(units)} of units; expected as many of each, at least one"
        )
    pairs = [_checked(values, unit) for values, unit in zip(parts, units, strict=True)]
    value = float(np.mean([values.mean() for values, _ in pairs]))
    number = np.unique(np.concatenate([unit for _, unit in pairs]))
    everything = np.concatenate([values for values, _ in pairs])
    if everything.min() == everything.max() and everything[0] in (0.0, 1.0):
        return Interval(value, *wilson(value * len(number), len(number), level))
    sums: list[Floats] = []
    sizes: list[Floats] = []
    for values, unit in pairs:
        place = np.searchsorted(number, unit)
        sums.append(_sum_by(place, values, len(number)))
        sizes.append(_sum_by(place, np.ones(len(values)), len(number)))
    # Units with equal sums and sizes are interchangeable: hits and misses of single captions make two kinds.
    kinds, counts = np.unique(np.stack(sums + sizes, axis=1), axis=0, return_counts=True)
    draws = []
    for weight in _resample(counts, resamples, seed):
        totals = weight @ kinds
        with np.errstate(invalid="ignore", divide="ignore"):
            draws.append((totals[:, : len(parts)] / totals[:, len(parts) :]).mean(axis=1))
    return _percentiles(value, np.concatenate(draws), level)


def median(
    values: ArrayLike,
    units: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The lower median (the smallest value with at least half of the queries at or below it) with its interval.

    Args:
        values: (n,) one per query, such as the rank of the right answer.
        units: (n,) as for `mean`.
    """
    values, unit = _checked(values, units)
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    value = float(ranked[(len(ranked) - 1) // 2])
    number, place = np.unique(unit[order], return_inverse=True)
    draws = []
    for weight in _resample(np.ones(len(number), dtype=np.int64), resamples, seed, width=len(ranked)):
        below = np.cumsum(weight[:, place], axis=1)
        draws.append(ranked[np.argmax(2 * below >= below[:, -1:], axis=1)])
    return _percentiles(value, np.concatenate(draws), level)


def balanced_mean(
    values: ArrayLike, classes: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean over classes of the mean within each class (balanced accuracy) with its interval.

    Rows are resampled without regard to class; a class that a resample misses is left out of that resample's mean.

    Args:
        values: (n,) one per row.
        classes: (n,) class of each row; classes without rows do not count.
    """
    values, of = _checked(values, classes)
    number, place = np.unique(of, return_inverse=True)
    size = np.bincount(place)
    recall = np.bincount(place, weights=values) / size
    value = float(recall.mean())
    if values.min() == values.max() and values[0] in (0.0, 1.0):
        return Interval(value, *wilson(value * len(values), len(values), level))
    # Rows of one class with one value are interchangeable: two kinds per class for hits and misses.
    kinds, counts = np.unique(np.stack([place.astype(np.float64), values], axis=1), axis=0, return_counts=True)
    starts = np.searchsorted(kinds[:, 0], np.arange(len(number)))
    draws = []
    for weight in _resample(counts, resamples, seed):
        rows = np.add.reduceat(weight, starts, axis=1)
        total = np.add.reduceat(weight * kinds[:, 1], starts, axis=1)
        draws.append((total / np.maximum(rows, 1)).sum(axis=1) / (rows > 0).sum(axis=1))
    return _percentiles(value, np.concatenate(draws), level)


def _checked(values: ArrayLike, units: ArrayLike | None) -> tuple[Floats, Integers]:
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or len(given) == 0:
        raise ValueError(f"values have shape {given.shape}; expected (n,) with n at least 1")
    unit = np.arange(len(given)) if units is None else np.asarray(units, dtype=np.int64)
    if unit.shape != given.shape:
        raise ValueError(f"values have shape {given.shape} and units {unit.shape}; expected one unit for each value")
    return given, unit


def _sum_by(place: Integers, values: Floats, number: int) -> Floats:
    """(number,) sum of the values at each place."""
    return np.bincount(place, weights=values, minlength=number).astype(np.float64)


def _resample(counts: Integers, resamples: int, seed: int, width: int = 0) -> Iterator[Integers]:
    """How often each kind occurs in every resample, (part of resamples, kinds), in chunks that fit in memory."""
    generator = np.random.default_rng(seed)
    n = int(counts.sum())
    rows = max(1, _CHUNK // max(len(counts), width))
    for start in range(0, resamples, rows):
        yield generator.multinomial(n, counts / n, size=min(rows, resamples - start))


def _percentiles(value: float, draws: Floats, level: float) -> Interval:
    tail = 50.0 * (1.0 - level)
    # nan: a resample that happened to draw no unit with a value, in the tiniest of sets.
    low, high = np.nanpercentile(draws, [tail, 100.0 - tail])
    return Interval(value, float(low), float(high))
