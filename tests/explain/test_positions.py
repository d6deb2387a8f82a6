"""Likeness of positions against a slow twin: sines and cosines know their distance."""

import math

import pytest
import torch

from multiway.explain.positions import position_similarity
from multiway.nn.patch import sincos_positions


def test_fixed_positions_are_as_like_as_their_sines_say() -> None:
    """Of two places r, c and r', c': the mean over frequencies w of cos(w (r - r')) and cos(w (c - c'))."""
    side, width = 4, 16
    found = position_similarity(sincos_positions((side, side), width))
    frequencies = [10000.0 ** -(n / (width // 4)) for n in range(width // 4)]
    for r in range(side):
        for c in range(side):
            for row in range(side):
                for column in range(side):
                    waves = [math.cos(w * (r - row)) + math.cos(w * (c - column)) for w in frequencies]
                    assert found[r, c, row, column].item() == pytest.approx(sum(waves) / (2 * len(waves)), abs=1e-5)


def test_length_counts_for_nothing_and_grids_are_square() -> None:
    positions = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    scaled = positions * torch.arange(1, 10)[:, None]
    torch.testing.assert_close(position_similarity(scaled), position_similarity(positions))
    assert torch.allclose(position_similarity(positions).flatten(2).flatten(0, 1).diagonal(), torch.ones(9))
    with pytest.raises(ValueError, match="10 positions"):
        position_similarity(torch.randn(10, 6))
