import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToySource

from multiway.batch import ViewSpec
from multiway.data.curriculum import CurriculumOrder, Pacing
from multiway.data.loader import Loader, Order
from multiway.data.source import DataError
from multiway.data.tokenizer import Tokenizer, TokenizerSpec


def order(rows: int = 50, batch: int = 5, steps: int = 60, seed: int = 3, **pacing: object) -> CurriculumOrder:
    scores = np.random.default_rng(0).permutation(rows).astype(float)
    return CurriculumOrder(scores, Pacing(**pacing), steps, batch, seed)  # type: ignore[arg-type]


def test_pacing_is_the_papers() -> None:
    linear, root = Pacing("linear", 0.1), Pacing("root", 0.1)
    for progress in (0.0, 0.3, 0.5, 0.99):
        assert linear.competence(progress) == pytest.approx(0.1 + progress * 0.9)
        # Platanios et al., equation 7, p = 2: sqrt(t (1 - c0^2) / T + c0^2).
        assert root.competence(progress) == pytest.approx(math.sqrt(progress * (1 - 0.1**2) + 0.1**2))
    assert Pacing("step", 0.3).parts(100, 40) == ((0, 30), (20, 100))
    assert Pacing("linear", 0.2, until=30, phases=3).parts(100, 1000) == ((0, 20), (10, 47), (20, 74), (30, 100))
    # Fewer steps than phases: what has no step of its own is left out.
    assert Pacing("linear", 0.5, until=2, phases=4).parts(8, 100) == ((0, 5), (1, 7), (2, 8))


@pytest.mark.parametrize("shape", ["linear", "root", "step"])
def test_within_a_phase_the_easiest_rows_come_once_an_epoch(shape: str) -> None:
    """The slow twin: epochs written out, part by part."""
    found = order(shape=shape, phases=4, start=0.3)
    rank = {int(row): place for place, row in enumerate(found.ranked)}
    ends = [begins for begins, _ in found.parts[1:]] + [200]
    for (begins, count), end in zip(found.parts, ends, strict=True):
        rows = np.concatenate([found.at(step)[1] for step in range(begins, end)])
        assert max(rank[int(row)] for row in rows) < count
        for start in range(0, len(rows) - count + 1, count):
            assert sorted(rank[int(row)] for row in rows[start : start + count]) == list(range(count))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(4, 60),
    batch=st.integers(1, 4),
    steps=st.integers(1, 50),
    start=st.floats(0.05, 1),
    until=st.sampled_from([0.3, 0.9, 1, 7, 60]),
    phases=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_no_row_is_drawn_twice_alike(
    rows: int, batch: int, steps: int, start: float, until: float, phases: int, seed: int
) -> None:
    """(epoch, row) is what augmentation is drawn by; epochs never go back; ranks share a step out."""
    pacing = Pacing("linear", start, until, phases)
    scores = np.arange(rows, dtype=float)
    if math.ceil(start * rows - 1e-9) < batch and batch <= rows and pacing.parts(rows, steps)[0][1] < batch:
        with pytest.raises(DataError, match="fewer than a batch"):
            CurriculumOrder(scores, pacing, steps, batch, seed)
        return
    found = CurriculumOrder(scores, pacing, steps, batch, seed)
    seen, last = set(), 0
    for step in range(70):
        epochs, chosen = found.at(step)
        assert min(epochs) >= last and found.epoch(step) == pytest.approx(float(epochs[0]), abs=1)
        assert int(found.epoch(step)) == epochs[0]
        last = int(epochs[-1])
        pairs = {*zip(epochs.tolist(), chosen.tolist(), strict=True)}
        assert len(pairs) == batch and not pairs & seen
        seen |= pairs
        if batch % 2 == 0:
            both = [found.at(step, rank, 2)[1] for rank in (0, 1)]
            assert np.array_equal(np.stack(both, 1).ravel(), chosen)


def test_high_scores_may_be_the_easy_ones_and_equal_ones_are_drawn() -> None:
    scores = [0.0, 3.0, 1.0, 2.0]
    low, high = (CurriculumOrder(scores, Pacing(easy=easy, start=0.5), 9, 1, 0).ranked for easy in ("low", "high"))
    assert low.tolist() == [0, 2, 3, 1] and high.tolist() == [1, 3, 2, 0]
    ties = {tuple(CurriculumOrder(np.zeros(5), Pacing(), 9, 1, seed).ranked.tolist()) for seed in range(4)}
    assert len(ties) == 4 and all(sorted(each) == [0, 1, 2, 3, 4] for each in ties)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"begins with 10 of 50 rows, fewer than a batch of 16; raise --pacing.start to 0\.32"
    ):
        order(batch=16)
    with pytest.raises(DataError, match="score of row 1 is nan"):
        CurriculumOrder([0.0, math.nan], Pacing(), 9, 1, 0)
    for wrong in ({"start": 0.0}, {"start": 1.1}, {"until": 0}, {"phases": 0}):
        with pytest.raises(ValueError, match="a curriculum starts with"):
            Pacing(**wrong)  # type: ignore[arg-type]


def test_a_loader_takes_it() -> None:
    source, view = ToySource(64), ViewSpec(size=16)
    words = Tokenizer.train([c for i in range(64) for c in source.row(i).captions], TokenizerSpec(300, 16))
    plain, paced = Loader(source, view, words, 8, seed=1), Loader(source, view, words, 8, seed=1)
    assert isinstance(plain.order, Order)
    paced.reorder(CurriculumOrder(np.arange(64), Pacing("step", 0.25), 20, 8, 1))
    early, late = paced.batch(3).sample_index, [paced.batch(step).sample_index for step in range(10, 18)]
    assert early is not None and int(early.max()) < 16 and paced.epoch(3) == 1.5
    assert sorted(int(row) for each in late for row in each) == list(range(64)) and paced.epoch(18) == 5 + 1
