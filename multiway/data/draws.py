"""Random choices as a pure function of where they are made: (seed, epoch, sample, site).

A generator that is advanced step by step would have to be saved, split among workers and kept in step across ranks. A
hash of the place needs none of this: any batch can be drawn again, alone, on any machine. The hash is the finaliser of
SplitMix64 (Steele, Lea and Flood, 2014), chained over the coordinates.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from multiway.data.source import stable_id

__all__ = ["SORTED", "derived", "permutation", "scattered", "shuffled", "uniforms"]

SORTED = 1 << 22
"""Rows up to which an epoch's order is sorted out once and kept; above, each place is computed by itself (`shuffled`)."""

_ROUNDS = 4
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


def derived(seed: int, site: str, *coordinates: int) -> int:
    """A seed of its own for a part of what a seed decides."""
    return int(_hash(seed, stable_id(site), *coordinates)[0])


def scattered(
    seed: int, epoch: int | np.ndarray, count: int, positions: np.ndarray, site: str = "scattered"
) -> np.ndarray:
    """What stands at some positions of a shuffled row of `count` things, without laying out the row.

    A keyed bijection of [0, count): a Feistel network over a rectangle of that many places or a few more, each side moved in turn
    by a hash of the other, and walked on from the few places outside (Black and Rogaway, "Ciphers with arbitrary finite domains",
    CT-RSA 2002, section 4). Time and memory are those of `positions`, whatever `count` is.

    Args:
        seed, epoch, site: the key; `epoch` may differ from position to position.
        count: of things, 1 or more.
        positions: (P,) int64 in [0, count).

    Returns:
        (P,) int64 in [0, count).
    """
    wide = math.isqrt(count - 1) + 1
    high = -(-count // wide)
    key = _hash(seed, stable_id(site), epoch)
    steps = np.arange(2 * _ROUNDS, dtype=np.uint64)[:, None] * _GAMMA
    turns = [np.broadcast_to(each, positions.shape) for each in _mix(key + steps)]
    found = np.asarray(positions, dtype=np.int64).copy()
    outside = np.arange(len(found))
    while len(outside):
        keys = [each[outside] for each in turns]
        found[outside] = _feistel(keys, np.uint64(wide), np.uint64(high), found[outside].astype(np.uint64))
        outside = outside[found[outside] >= count]
    return found


def _feistel(keys: list[np.ndarray], wide: np.uint64, high: np.uint64, places: np.ndarray) -> np.ndarray:
    left, right = np.divmod(places, wide)
    for turn in range(0, 2 * _ROUNDS, 2):
        left = (left + _mix(keys[turn] ^ right) % high) % high
        right = (right + _mix(keys[turn + 1] ^ left) % wide) % wide
    return (left * wide + right).astype(np.int64)


def shuffled(seed: int, epoch: int, count: int, positions: np.ndarray) -> np.ndarray:
    """(P,) int64: the rows at some positions of one epoch's order.

    Up to `SORTED` rows they are those of `permutation`, as they have always been; a billion rows would take a minute and 24 GB
    that way, and are scattered instead.
    """
    if count <= SORTED:
        return permutation(seed, epoch, count)[positions]
    return scattered(seed, epoch, count, positions, "order")
