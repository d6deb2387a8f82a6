"""Masking patches: how many, where, and that a replay is exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
