"""Random choices as a pure function of where they are made: (seed, epoch, sample, site).

A generator that is advanced step by step would have to be saved, split among workers and kept in step across ranks. A
hash of the place needs none of this: any batch can be drawn again, alone, on any machine. The hash is the finaliser of
SplitMix64 (Steele, Lea and Flood, 2014), chained over the coordinates.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from multiway.data.source import stable_id

__all__ = ["permutation", "uniforms"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: SplitMix64's increment


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _hash(*coordinates: np.ndarray | int) -> np.ndarray:
    state = np.zeros(1, dtype=np.uint64)
    with np.errstate(over="ignore"):  # wrapping is the arithmetic that is wanted
        for coordinate in coordinates:
            state = _mix(state * np.uint64(3) + np.asarray(coordinate, dtype=np.uint64) + _GAMMA)
    return state


def uniforms(seed: int, epochs: np.ndarray, samples: np.ndarray, site: str, count: int) -> np.ndarray:
    """Uniform numbers for each row of a batch.

    Args:
        seed: of the run.
        epochs: (B,) pass over the data that each row belongs to.
        samples: (B,) row in the source.
        site: what is being decided (`caption`, `crop`, ...); different sites are independent.
        count: numbers per row, K.

    Returns:
        (B, K) float64 in [0, 1).
    """
    rows = _hash(seed, stable_id(site), np.asarray(epochs)[:, None], np.asarray(samples)[:, None], np.arange(count))
    return (rows >> np.uint64(11)).astype(np.float64) * 2.0**-53


@lru_cache(maxsize=2)  # a batch may straddle two epochs
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """(count,) int64: the order of the rows in one epoch. The same on every machine and numpy version."""
    keys = _hash(seed, stable_id("order"), epoch, np.arange(count))
    return np.argsort(keys, kind="stable")
