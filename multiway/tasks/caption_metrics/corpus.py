"""What every caption metric gives: a value over all pictures, a score of each, and an interval over pictures.

The pictures are what was drawn when a test set was made, so they are resampled, each with its caption and all its references
(percentile bootstrap, Efron & Tibshirani 1993, chapter 13). How often each picture occurs in a resample is all that a metric
needs to know:

- BLEU is a function of sums over pictures (n-grams found, n-grams written, lengths), and so of weighted sums;
- ROUGE-L and CIDEr-D are means of the pictures' scores. CIDEr-D's document frequencies stay those of the whole set: they say
  what words are worth, as a fixed part of the metric, and resampling them would measure another metric each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multiway.tasks import statistics
from multiway.tasks.statistics import Interval

__all__ = ["Corpus", "mean_of"]

Floats = NDArray[np.float64]

_CHUNK = 4_000_000  # drawn pictures held at once, 32 MB


@dataclass(frozen=True)
class Corpus:
    """A metric over a set of pictures, on the field's scale: 1.0 is what tables print as 100.

    Attributes:
        name: `BLEU-4`, `ROUGE-L`, `CIDEr-D`.
        value: over all pictures.
        pictures: (N,) score of each picture by itself. Their mean is `value` for ROUGE-L and CIDEr-D, not for BLEU.
        sums: (N, S) what each picture adds to the sums that BLEU is computed from; None where the value is a mean.
        of: (R, S) sums -> (R,) values; None where the value is a mean.
    """

    name: str
    value: float
    pictures: Floats
    sums: Floats | None = None
    of: Callable[[Floats], Floats] | None = None

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def interval(
        self, *, level: float = statistics.LEVEL, resamples: int = statistics.RESAMPLES, seed: int = 0
    ) -> Interval:
        """The value with its bootstrap percentile interval over pictures."""
        if self.sums is None or self.of is None:
            return statistics.mean(self.pictures, level=level, resamples=resamples, seed=seed)
        draws = [self.of(times @ self.sums) for times in _draw(len(self), resamples, seed)]
        tail = 50.0 * (1.0 - level)
        low, high = np.percentile(np.concatenate(draws), [tail, 100.0 - tail])
        return Interval(self.value, float(low), float(high))


def mean_of(name: str, pictures: Floats) -> Corpus:
    """A metric that is the mean of the pictures' scores."""
    return Corpus(name, float(np.mean(pictures)), pictures)


def _draw(pictures: int, resamples: int, seed: int) -> Iterator[Floats]:
    """(part of resamples, N) how often each picture occurs, in chunks that fit in memory."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // pictures)
    for start in range(0, resamples, rows):
        here = min(rows, resamples - start)
        drawn = generator.integers(0, pictures, size=(here, pictures))
        drawn += pictures * np.arange(here)[:, None]
        yield np.bincount(drawn.ravel(), minlength=here * pictures).reshape(here, pictures).astype(np.float64)
