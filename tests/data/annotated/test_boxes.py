"""Boxes in pixels as shares of the picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.annotated.boxes import box_of_corners, box_of_size
from multiway.data.source import BadRow


@given(st.tuples(*(st.floats(0, 1) for _ in range(4))), st.integers(1, 4000), st.integers(1, 4000))
def test_boxes_are_shares(given_box, width: int, height: int) -> None:
    left, right = sorted(given_box[:2])
    top, bottom = sorted(given_box[2:])
    pixels = (left * width, top * height, right * width, bottom * height)
    size = (pixels[0], pixels[1], pixels[2] - pixels[0], pixels[3] - pixels[1])
    if pixels[2] > pixels[0] and pixels[3] > pixels[1]:
        assert np.allclose(box_of_corners(pixels, width, height), (left, top, right, bottom))
        if size[2] > 1e-9 and size[3] > 1e-9:
            assert np.allclose(box_of_size(size, width, height), (left, top, right, bottom))
    else:
        with pytest.raises(BadRow, match="encloses nothing"):
            box_of_corners(pixels, width, height)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [1, 2, 3],
        "1234",
        [0, 0, 10**400, 1],
        [0, 0, float("nan"), 1],
        [0, 0, True, 1],
        [0, 0, 90, 5],
        [-9, 0, 5, 5],
    ],
)
def test_boxes_that_are_none(values: object) -> None:
    with pytest.raises(BadRow, match="the box"):
        box_of_corners(values, 50, 50)


def test_boxes_that_reach_over_the_edge_by_rounding_are_cut() -> None:
    assert box_of_size([-0.5, 0, 51.0, 50], 50, 50) == (0.0, 0.0, 1.0, 1.0)
