"""Which tokens are those of one square picture."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from multiway.nn.picture_grid import square_grid


def picture(patches: int) -> Tensor:
    """A class token of ones, and patches."""
    return torch.cat([torch.ones(2, 1, 3), torch.rand(2, patches, 3)], 1)


@given(st.integers(1, 20))
def test_one_picture(side: int) -> None:
    assert square_grid(picture(side * side)) == (side, side)


@given(st.integers(1, 20))
def test_two_pictures_are_refused_whatever_their_number_of_tokens(side: int) -> None:
    with pytest.raises(ValueError, match="each picture by itself"):
        square_grid(torch.cat([picture(side * side), picture(side * side)], 1))


@pytest.mark.parametrize("patches", [0, 2, 3, 5, 8, 15, 288])
def test_no_square(patches: int) -> None:
    with pytest.raises(ValueError, match=f"{patches + 1} tokens"):
        square_grid(picture(patches))


def test_one_picture_with_as_many_tokens_as_two() -> None:
    assert square_grid(picture(3 * 3)) == (3, 3) and square_grid(picture(17 * 17)) == (17, 17)
