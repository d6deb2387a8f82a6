"""Numbers for displacements at another grid: against the spline library that the released code calls, and what must not change."""

import numpy as np
import pytest
import torch

from multiway.nn.displacements import places, resize_displacements
from multiway.nn.relative import RelativePositions


def table(side: int, width: int = 3) -> torch.Tensor:
    torch.manual_seed(side)
    return torch.randn((2 * side - 1) ** 2, width)


def test_the_same_grid_is_unchanged() -> None:
    same = table(4)
    assert resize_displacements(same, (4, 4), (4, 4)) is same


@pytest.mark.parametrize(("old", "new"), [(14, 24), (4, 6), (3, 7), (8, 5), (5, 4)])
def test_it_is_the_interpolating_spline_of_fitpack(old: int, new: int) -> None:
    """Which `scipy.interpolate.interp2d(kind="cubic")` was on a grid, outermost values carried on."""
    spline = pytest.importorskip("scipy.interpolate").RectBivariateSpline
    own, at = table(old), np.array(places(old, new))
    read = np.clip(np.arange(1 - new, new), at[0], at[-1])
    found = resize_displacements(own, (old, old), (new, new))
    for channel in range(3):
        slow = spline(at, at, own[:, channel].double().view(len(at), -1).numpy(), s=0)(read, read)
        torch.testing.assert_close(found[:, channel].double(), torch.from_numpy(slow).flatten(), atol=3e-5, rtol=1e-5)


def test_places_of_the_release() -> None:
    """14 patches a side to 24: the ratio that its code notes, and the ends of both."""
    at = places(14, 24)
    assert len(at) == 27 and at[13] == 0 and at[14] == 1 and at == [-each for each in reversed(at)]
    assert at[-1] == pytest.approx(23, abs=1e-6)
    assert (at[-1] - at[-2]) / (at[-2] - at[-3]) == pytest.approx(1.090307, abs=2e-6)


def test_one_patch_stays_one_patch_and_a_ramp_stays_a_ramp() -> None:
    old, new = 5, 8
    at, wanted = torch.tensor(places(old, new)), torch.arange(1 - new, new).float()
    down, right = (each.flatten() for each in torch.meshgrid(at, at, indexing="ij"))
    ramps = torch.stack([down, right, 2 * down - 0.5 * right + 3], 1).float()
    found = resize_displacements(ramps, (old, old), (new, new))
    down, right = (each.flatten() for each in torch.meshgrid(wanted, wanted, indexing="ij"))
    torch.testing.assert_close(found, torch.stack([down, right, 2 * down - 0.5 * right + 3], 1), atol=1e-4, rtol=0)
    own = table(old)
    near = resize_displacements(own, (old, old), (new, new)).view(2 * new - 1, 2 * new - 1, 3)
    kept = own.view(2 * old - 1, 2 * old - 1, 3)[old - 2 : old + 1, old - 2 : old + 1]
    torch.testing.assert_close(near[new - 2 : new + 1, new - 2 : new + 1], kept, atol=1e-5, rtol=0)


@pytest.mark.parametrize("old", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("new", [1, 2, 3, 5, 12])
def test_any_two_sizes(old: int, new: int) -> None:
    even = torch.full(((2 * old - 1) ** 2, 1), 0.25)
    found = resize_displacements(even, (old, old), (new, new))
    assert found.shape == ((2 * new - 1) ** 2, 1)
    torch.testing.assert_close(found, torch.full_like(found, 0.25), atol=1e-5, rtol=0)


def test_a_smaller_grid_leaves_out_what_is_far() -> None:
    own = table(6).view(11, 11, 3)
    found = resize_displacements(own.flatten(0, 1), (6, 6), (4, 4)).view(7, 7, 3)
    torch.testing.assert_close(found, own[2:9, 2:9], atol=1e-5, rtol=0)


def test_a_table_of_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="49 displacements for a grid of 5x5 patches; expected 81"):
        resize_displacements(table(4), (5, 5), (6, 6))


def relative(side: int, context: int = 7) -> RelativePositions:
    torch.manual_seed(3)
    positions = RelativePositions(2, 3, (side, side), context)
    torch.nn.init.normal_(positions.table)
    return positions


@torch.no_grad()
def test_what_is_begun_at_another_size_is_what_would_be_read_there() -> None:
    old, new = relative(3), relative(5)
    found = new.of_other_grid(old.table)
    assert found is not None and found.shape == new.table.shape
    new.table.copy_(found)
    torch.testing.assert_close(new.image(), old.image((5, 5)))
    torch.testing.assert_close(new.pair(6), old.pair(6, (5, 5)))
    assert torch.equal(new.text(7), old.text(7))
    assert torch.equal(old.of_other_grid(old.table), old.table)


def test_what_is_no_such_table_is_known() -> None:
    new = relative(5)
    assert new.of_other_grid(relative(3, context=8).table) is None
    assert new.of_other_grid(torch.zeros(len(relative(3).table), 5)) is None
    assert new.of_other_grid(torch.zeros(4, 6)) is None
