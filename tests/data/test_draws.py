import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.draws import permutation, uniforms


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
