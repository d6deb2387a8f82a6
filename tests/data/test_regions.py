"""Overlaps against counting points, and which candidates are right."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.data.examples import Pointed
from multiway.data.regions import overlaps, region_targets, spanned

_edge = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted)
_box = st.tuples(_edge, _edge).map(lambda e: (e[0][0] / 12, e[1][0] / 12, e[0][1] / 12, e[1][1] / 12))


@given(ours=st.lists(_box, min_size=1, max_size=4), theirs=st.lists(_box, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_overlap_is_the_share_of_cells(ours: list, theirs: list) -> None:
    """Edges lie on a grid of 12, so that areas are numbers of cells."""

    def cells(box: tuple) -> set:
        left, top, right, bottom = (round(12 * each) for each in box)
        return {(x, y) for x in range(left, right) for y in range(top, bottom)}

    got = overlaps(ours, theirs)
    for i, a in enumerate(ours):
        for j, b in enumerate(theirs):
            both, either = cells(a) & cells(b), cells(a) | cells(b)
            assert float(got[i, j]) == pytest.approx(len(both) / len(either) if either else 0.0)


def test_targets_are_candidates_that_overlap_by_half() -> None:
    meant = (0.0, 0.0, 0.5, 1.0)
    three = (meant, (0.0, 0.0, 1.0, 1.0), (0.5, 0.0, 1.0, 1.0))
    rows = [Pointed(str(n), (0,), "a", boxes=boxes) for n, boxes in enumerate([(meant,), (meant, three[2]), (meant,)])]
    found = region_targets(rows, [three, three[1:], ()])
    assert found["targets"].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert found["boxes_mask"].tolist() == [[True] * 3, [True, True, False], [False] * 3]
    torch.testing.assert_close(found["boxes"][1, 1], torch.tensor([0.5, 0.0, 1.0, 1.0]))


def test_a_grid_spans_every_rectangle_once() -> None:
    boxes = spanned(3)
    assert len(boxes) == len(set(boxes)) == 36 and (0.0, 0.0, 1.0, 1.0) in boxes
    assert all(left < right and top < bottom for left, top, right, bottom in boxes)
    # Whatever is at least a fifth of the picture wide and high is overlapped by half.
    torch.manual_seed(0)
    size, place = 0.2 + 0.8 * torch.rand(300, 2), torch.rand(300, 2)
    low = place * (1 - size)
    some = [tuple(map(float, each)) for each in torch.cat([low, low + size], 1)]
    assert float(overlaps(spanned(6), some).amax(0).min()) > 0.45
    assert float((overlaps(spanned(6), some).amax(0) >= 0.5).double().mean()) > 0.98
