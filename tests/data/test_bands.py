"""Sums of a few lines against products with the whole matrices."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.data.bands import both_ways


def drawn(rows: int, places: int, taps: int, side: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, places, taps)
    return torch.randint(0, side, shape, generator=generator), torch.randn(shape, generator=generator)


def whole(lines: torch.Tensor, weights: torch.Tensor, side: int) -> torch.Tensor:
    """(n, P, S) the matrix that the bands stand for; a line that is named twice counts twice."""
    return torch.zeros(*lines.shape[:2], side, dtype=torch.float64).scatter_add_(2, lines, weights.double())


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_they_are_products_with_matrices(rows: int, side: int, places: int, taps: int, seed: int) -> None:
    images = torch.randn(rows, 2, side, side, generator=torch.Generator().manual_seed(seed))
    across, down = drawn(rows, places, taps, side, seed), drawn(rows, places + 1, taps, side, seed + 1)
    expected = whole(*down, side)[:, None] @ images.double() @ whole(*across, side)[:, None].transpose(2, 3)
    torch.testing.assert_close(both_ways(images, across, down).double(), expected, atol=1e-5, rtol=1e-5)


def test_a_row_has_the_same_bits_alone_and_with_more_taps_of_no_weight() -> None:
    images = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    across, down = drawn(5, 33, 7, 40, 1), drawn(5, 21, 7, 40, 2)
    together = both_ways(images, across, down)
    for row in range(5):
        part = slice(row, row + 1)
        alone = both_ways(images[part], *((each[0][part], each[1][part]) for each in (across, down)))
        assert torch.equal(alone[0], together[row])
    more = [torch.cat([each, torch.zeros_like(each[..., :2])], 2) for each in down]
    assert torch.equal(both_ways(images, across, (more[0], more[1])), together)
