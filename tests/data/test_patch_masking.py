"""Masking patches: how many, where, and that a replay is exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.config import from_json, identity_json
from multiway.data.draws import uniforms
from multiway.data.patch_masking import PatchMasking, mask_patches


def masks(masking: PatchMasking, size: int = 112, rows: int = 12, seed: int = 0) -> np.ndarray:
    draws = uniforms(seed, np.zeros(rows, dtype=np.int64), np.arange(rows), "patches", masking.draws(size))
    return mask_patches(draws, size, masking).numpy()


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0, 0.95), st.sampled_from([1, 4, 16]), st.floats(0.2, 1.0), st.integers(0, 5))
def test_every_picture_hides_equally_many(ratio: float, least: int, aspect: float, seed: int) -> None:
    found = masks(PatchMasking(ratio, 8, least, aspect), seed=seed)
    assert set(found.sum(1)) == {round(ratio * 14 * 14)}


def test_parts_of_a_batch_have_their_own_ratio() -> None:
    found = masks(PatchMasking(patch=8, ratios=(0.4, 0.0, 0.2)), rows=7)
    assert found.sum(1).tolist() == [78, 78, 78, 0, 0, 39, 39]


def test_blocks_hold_together() -> None:
    """Neighbours of a hidden patch are hidden far more often than the ratio; drawn one by one, as often."""

    def neighbours(least: int, aspect: float) -> float:
        grid = masks(PatchMasking(0.4, 8, least, aspect), rows=100).reshape(-1, 14, 14)
        return float(grid[:, :, 1:][grid[:, :, :-1]].mean())

    assert neighbours(16, 0.3) > 0.65


def test_every_place_is_hidden_now_and_then() -> None:
    share = masks(PatchMasking(0.4, 8), rows=600).mean(0)  # blocks reach corners less often than the middle
    assert share.min() > 0.03 and share.max() < 0.85


def test_a_row_does_not_depend_on_its_batch() -> None:
    masking = PatchMasking(0.4, 8)
    together = masks(masking, rows=6)
    draws = uniforms(0, np.zeros(1, dtype=np.int64), np.array([4]), "patches", masking.draws(112))
    assert np.array_equal(mask_patches(draws, 112, masking).numpy()[0], together[4])


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ratios in \[0, 1\)"):
        PatchMasking(1.0)
    with pytest.raises(ValueError, match="not divisible"):
        masks(PatchMasking(0.4, 9))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 0.95), st.integers(0, 5))
def test_at_random_every_picture_hides_as_many_and_a_started_patch(ratio: float, seed: int) -> None:
    found = masks(PatchMasking(ratio, 8, sampling="random"), seed=seed)
    kept = int(14 * 14 * (1 - ratio) + 1e-9)  # the published code's number
    assert set((~found).sum(1)) == {kept}


@pytest.mark.parametrize(("size", "patch", "kept"), [(224, 16, 49), (224, 14, 64), (32, 4, 16)])
def test_maes_three_quarters(size: int, patch: int, kept: int) -> None:
    assert set((~masks(PatchMasking(0.75, patch, sampling="random"), size)).sum(1)) == {kept}


def test_at_random_the_least_draws_are_kept() -> None:
    draws = np.array([[0.9, 0.1, 0.5, 0.3], [0.2, 0.8, 0.6, 0.7]])
    found = mask_patches(draws, 4, PatchMasking(0.5, 2, sampling="random")).numpy()
    assert found.tolist() == [[True, False, True, False], [False, True, False, True]]


def test_at_random_every_place_is_hidden_as_often_whatever_its_neighbours() -> None:
    grid = masks(PatchMasking(0.6, 8, sampling="random"), rows=3000).reshape(-1, 14, 14)
    assert abs(grid.mean(0) - 0.6).max() < 0.05
    # 118 of 196 are hidden; beside one of them 117 of 195 are.
    assert float(grid[:, :, 1:][grid[:, :, :-1]].mean()) == pytest.approx(117 / 195, abs=0.01)


def test_squares_of_several_patches_are_hidden_as_one() -> None:
    """SimMIM: 30 of 49 squares of 32 pixels at 224, each of four patches of 16."""
    found = masks(PatchMasking(0.6, 16, sampling="random", unit=32), 224)
    squares = found.reshape(-1, 7, 2, 7, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 49, 4)
    assert (squares == squares[:, :, :1]).all() and set(squares[:, :, 0].sum(1)) == {30}
    assert PatchMasking(0.6, 16, sampling="random", unit=32).draws(224) == 49


def test_on_a_grid_one_of_four_or_nine_is_kept() -> None:
    found = masks(PatchMasking(0.75, 8, sampling="grid"), 64).reshape(-1, 8, 8)
    assert not found[:, ::2, ::2].any() and set(found.sum((1, 2))) == {48}
    assert set(masks(PatchMasking(8 / 9, 8, sampling="grid"), 72).sum(1)) == {72}
    with pytest.raises(ValueError, match="one of every 4, 9, 16"):
        PatchMasking(0.6, sampling="grid")


def test_at_random_a_row_does_not_depend_on_its_batch_and_parts_have_ratios() -> None:
    masking = PatchMasking(0.7, 8, sampling="random")
    draws = uniforms(0, np.zeros(1, dtype=np.int64), np.array([4]), "patches", masking.draws(112))
    assert np.array_equal(mask_patches(draws, 112, masking).numpy()[0], masks(masking, rows=6)[4])
    found = masks(PatchMasking(patch=8, ratios=(0.5, 0.0), sampling="random"), rows=4)
    assert found.sum(1).tolist() == [98, 98, 0, 0]


def test_squares_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a multiple of the patch"):
        PatchMasking(0.6, 16, sampling="random", unit=24)
    with pytest.raises(ValueError, match="sampling 'random'"):
        PatchMasking(0.6, 16, unit=32)
    with pytest.raises(ValueError, match="not divisible by the 32 pixels"):
        masks(PatchMasking(0.6, 16, sampling="random", unit=32), 112)


def test_older_runs_are_what_they_were() -> None:
    old = {"ratio": 0.4, "patch": 8, "least": 16, "aspect": 0.3, "ratios": []}
    assert identity_json(PatchMasking(0.4, 8)) == old
    assert from_json(PatchMasking, old) == PatchMasking(0.4, 8)
