"""The pointing game's arithmetic: the box itself always wins, ties count as they fall, and evenly drawn points score the area."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.tasks.pointing import drawn_at, hit, inside_of

SIDE = 48
edges = st.tuples(st.integers(0, SIDE - 1), st.integers(1, SIDE)).filter(lambda both: both[0] < both[1])


@settings(max_examples=50, deadline=None)
@given(edges, edges)
def test_a_map_of_the_box_itself_is_always_right(across: tuple[int, int], down: tuple[int, int]) -> None:
    box = (across[0] / SIDE, down[0] / SIDE, across[1] / SIDE, down[1] / SIDE)
    inside = inside_of([box], SIDE)
    found = hit(inside.float(), [box])
    assert found.share == 1.0
    area = (across[1] - across[0]) * (down[1] - down[0]) / SIDE**2
    assert found.chance == pytest.approx(area) and inside.double().mean() == pytest.approx(area)
    assert hit(1.0 - inside.float(), [box]).share == (0.0 if area < 1 else 1.0)


def test_points_at_random_score_the_area() -> None:
    draw = torch.Generator().manual_seed(0)
    box = (0.25, 0.125, 0.75, 0.5)
    shares = [hit(torch.rand(SIDE, SIDE, generator=draw), [box]).share for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(0.5 * 0.375, abs=0.03)
    # Equally hot everywhere is exactly that.
    assert hit(torch.zeros(SIDE, SIDE), [box]).share == pytest.approx(0.5 * 0.375)


def test_the_point_and_what_is_withheld() -> None:
    heat = torch.zeros(4, 4)
    heat[1, 2] = 1.0
    found = hit(heat, [])
    assert found.point == (0.625, 0.375) and np.isnan(found.share) and np.isnan(found.chance)


def test_a_peak_stays_in_its_patch_when_drawn_finer() -> None:
    heat = torch.zeros(16, 4, 4)
    for number in range(16):
        heat[number].view(-1)[number] = 1.0
    for number, drawn in enumerate(drawn_at(heat, 96)):
        down, across = divmod(int(drawn.argmax()), 96)
        assert (down // 24) * 4 + across // 24 == number
