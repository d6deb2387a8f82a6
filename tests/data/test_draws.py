import tracemalloc
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.data.draws import permutation, scattered, shuffled, uniforms


@given(st.integers(0, 2**40), st.integers(0, 1000), st.integers(1, 300))
def test_permutation_is_one(seed: int, epoch: int, count: int) -> None:
    assert sorted(permutation(seed, epoch, count)) == list(range(count))


def test_permutations_differ_by_seed_and_epoch() -> None:
    orders = {tuple(permutation(seed, epoch, 50)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_the_numbers_never_change() -> None:
    """Pinned: another value here would silently change what every resumed run sees."""
    assert permutation(0, 0, 8).tolist() == [1, 7, 5, 2, 3, 4, 6, 0]


def test_a_row_is_the_same_alone_and_in_any_batch() -> None:
    samples = np.arange(100)
    together = uniforms(1, np.full(100, 2), samples, "flip", 3)
    for row in (0, 17, 99):
        alone = uniforms(1, np.array([2]), samples[row : row + 1], "flip", 3)
        assert (alone == together[row]).all()


def test_uniform_and_independent() -> None:
    drawn = uniforms(0, np.zeros(20_000, dtype=int), np.arange(20_000), "a", 4)
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    expected = drawn.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-square with 19 degrees of freedom: p = 0.0007
    other = uniforms(0, np.zeros(20_000, dtype=int), np.arange(20_000), "b", 4)
    columns = np.concatenate([drawn, other], axis=1)
    off = np.corrcoef(columns.T) - np.eye(8)
    assert np.abs(off).max() < 0.03  # 4 standard errors


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000), st.integers(1, 3000))
@settings(deadline=None)
def test_scattered_is_a_permutation_of_any_count(seed: int, epoch: int, count: int) -> None:
    assert sorted(scattered(seed, epoch, count, np.arange(count))) == list(range(count))


def test_scattered_places_are_the_same_asked_for_alone() -> None:
    positions = np.arange(0, 1000, 7)
    together = scattered(5, 3, 1000, positions)
    assert [int(scattered(5, 3, 1000, positions[i : i + 1])[0]) for i in range(len(positions))] == together.tolist()
    epochs = positions % 5  # keys may differ from position to position
    mixed = scattered(5, epochs, 1000, positions)
    for epoch in range(5):
        assert (mixed[epochs == epoch] == scattered(5, epoch, 1000, positions[epochs == epoch])).all()


def test_the_scattered_numbers_never_change() -> None:
    """Pinned, as of `permutation`."""
    assert scattered(0, 0, 8, np.arange(8)).tolist() == [2, 3, 0, 5, 6, 4, 1, 7]
    assert scattered(1, 2, 10**9, np.array([0, 1, 10**9 - 1])).tolist() == [223419848, 752596098, 275873153]


def test_a_billion_rows_cost_nothing() -> None:
    tracemalloc.start()
    found = shuffled(3, 1, 10**9, np.arange(10**9 - 4096, 10**9))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000 and len(set(found.tolist())) == 4096 and found.min() >= 0 and found.max() < 10**9


def test_small_orders_are_as_they_have_always_been() -> None:
    places = np.array([4, 0, 99])
    assert (shuffled(7, 2, 100, places) == permutation(7, 2, 100)[places]).all()


def test_scattered_neighbours_land_anywhere() -> None:
    """Where successive positions land is uniform, and where one lands says nothing of the next."""
    count = 1 << 20
    found = scattered(11, 0, count, np.arange(20_000)) / count
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi-square with 19 degrees of freedom: p = 0.0007
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.03  # 4 standard errors
    other = scattered(11, 1, count, np.arange(20_000)) / count
    assert abs(np.corrcoef(found, other)[0, 1]) < 0.03


def test_every_order_of_three_comes_up() -> None:
    orders = Counter(tuple(scattered(seed, 0, 3, np.arange(3)).tolist()) for seed in range(1200))
    assert len(orders) == 6 and all(130 < times < 270 for times in orders.values())  # 200, 5 standard errors
