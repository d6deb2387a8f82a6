"""Orders of rows: each once per epoch, asked for in any way; by shards, by weight; and rows that stand in."""

import pickle
from collections import Counter
from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToySource

from multiway.data.order import GlobalShuffle, Mixed, Order, Passes, ShardShuffle, Shuffle, passes_of
from multiway.data.source import DataError

sizes = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)


def starts_of(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)])


def sequence(passes: Passes, count: int) -> list[tuple[int, int]]:
    epochs, rows = passes.at(np.arange(count))
    return list(zip(epochs.tolist(), rows.tolist(), strict=True))


@given(sizes, st.integers(1, 5), st.integers(0, 2**40))
@settings(deadline=None)
def test_by_shards_every_row_comes_once_per_epoch(counts: list[int], window: int, seed: int) -> None:
    passes = ShardShuffle(starts_of(counts), window, seed)
    for epoch in range(3):
        epochs, rows = passes.at(np.arange(epoch * passes.rows, (epoch + 1) * passes.rows))
        assert sorted(rows.tolist()) == list(range(passes.rows)) and (epochs == epoch).all()


@given(sizes, st.integers(1, 5), st.integers(0, 100))
@settings(deadline=None)
def test_a_window_holds_whole_shards_and_no_others(counts: list[int], window: int, seed: int) -> None:
    """The slow twin: shards in the order of first appearance, cut into windows, have exactly the rows seen between the cuts."""
    starts = starts_of(counts)
    passes = ShardShuffle(starts, window, seed)
    rows = passes.at(np.arange(passes.rows))[1]
    order = passes._laid(0).shards.tolist()
    assert sorted(order) == list(range(len(counts)))
    place = 0
    for first in range(0, len(order), window):
        members = [row for shard in order[first : first + window] for row in range(starts[shard], starts[shard + 1])]
        assert sorted(rows[place : place + len(members)].tolist()) == sorted(members)
        place += len(members)


def mixtures() -> st.SearchStrategy[tuple[list[int], list[int]]]:
    pair = st.tuples(st.integers(1, 30), st.integers(1, 7))
    return st.lists(pair, min_size=1, max_size=4).map(lambda pairs: ([n for n, _ in pairs], [w for _, w in pairs]))


def mixed(rows: list[int], weights: list[int], seed: int) -> Mixed:
    common = gcd(*weights)
    parts = [GlobalShuffle(count, seed + number) for number, count in enumerate(rows)]
    return Mixed(parts, starts_of(rows).tolist(), [weight // common for weight in weights], seed)


@given(mixtures(), st.integers(0, 2**40))
@settings(deadline=None, max_examples=60)
def test_a_mixture_keeps_weights_and_passes_each_source_whole(given: tuple[list[int], list[int]], seed: int) -> None:
    rows, weights = given
    total = sum(weights) // gcd(*weights)
    cycles = 3 * max(rows)
    starts = starts_of(rows)
    seen = sequence(mixed(rows, weights, seed), cycles * total)
    for number, count in enumerate(rows):
        own = [(e, row - starts[number]) for e, row in seen if starts[number] <= row < starts[number + 1]]
        assert len(own) == cycles * weights[number] // gcd(*weights)  # exactly by weight
        whole = len(own) // count
        assert whole >= 3
        times = Counter(own)
        assert all(times[epoch, row] == 1 for epoch in range(whole) for row in range(count))
        assert max(times.values()) == 1


@given(mixtures(), sizes, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_ranks_batches_and_resuming_change_no_row(given, counts, small, world, other_world, seed) -> None:
    """Half a run on some ranks, the rest on others and with another batch: what is seen is the one sequence, each place once."""
    rows, weights = given
    for passes in (ShardShuffle(starts_of(counts), 2, seed), mixed(rows, weights, seed)):
        batch = small * world * other_world
        expected = sequence(passes, 24 * batch)
        seen: list[tuple[int, int]] = []
        for ranks, rows_per_step, steps in ((world, batch, range(12)), (other_world, 2 * batch, range(6, 12))):
            order = Order(passes.rows, rows_per_step, seed, pickle.loads(pickle.dumps(passes)))  # as a worker gets it
            for step in steps:
                parts = [order.at(step, rank, ranks) for rank in range(ranks)]
                epochs = np.stack([part[0] for part in parts], 1).ravel()
                found = np.stack([part[1] for part in parts], 1).ravel()
                seen += zip(epochs.tolist(), found.tolist(), strict=True)
        assert seen == expected


def test_epochs_differ_and_so_do_seeds() -> None:
    starts = starts_of([5] * 20)
    orders = {
        tuple(ShardShuffle(starts, 4, seed).at(np.arange(epoch * 100, (epoch + 1) * 100))[1].tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_a_batch_is_read_from_few_shards() -> None:
    starts = starts_of([100] * 200)
    near = Order(20_000, 256, 0, ShardShuffle(starts, 8, 0))
    far = Order(20_000, 256, 0)
    touched = [[len(set((order.at(step)[1] // 100).tolist())) for step in range(60)] for order in (near, far)]
    assert max(touched[0]) <= 16 and np.median(touched[0]) == 8 and min(touched[1]) > 100


def test_the_numbers_of_a_shard_shuffle_and_a_mixture_never_change() -> None:
    """Pinned: another value here would silently change what every resumed run sees."""
    assert ShardShuffle(starts_of([3, 2, 4, 1]), 2, 7).at(np.arange(10))[1].tolist() == [9, 0, 2, 1, 6, 3, 4, 8, 7, 5]
    assert mixed([3, 5], [1, 3], 7).at(np.arange(12))[1].tolist() == [5, 7, 2, 3, 6, 5, 4, 1, 0, 7, 4, 6]


def test_a_row_stands_in_from_the_same_source() -> None:
    order = Order(8, 4, 0, mixed([3, 5], [1, 3], 0))
    assert {order.instead(1, share) for share in np.linspace(0, 0.999, 50)} == {0, 1, 2}
    assert {order.instead(4, share) for share in np.linspace(0, 0.999, 50)} == {3, 4, 5, 6, 7}
    assert {Order(8, 4, 0).instead(1, share) for share in np.linspace(0, 0.999, 50)} == set(range(8))


def test_by_shards_only_where_there_are_some() -> None:
    with pytest.raises(DataError, match=r"toy@train lies in no shards.*multiway data shard"):
        passes_of(ToySource(8), 0, Shuffle("shards"))
    with pytest.raises(DataError, match="1 shard or more"):
        Shuffle("shards", 0)
    with pytest.raises(DataError, match="'files' of 8 shards"):
        Shuffle("files")  # type: ignore[arg-type]
