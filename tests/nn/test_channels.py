"""Channels of a picture: Lab against a plain twin and tabulated colours, edges, the coarse copy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.nn.channels import CHANNELS, channels, coarse, lab, sobel

# sRGB's corners in CIE Lab under D65 (any colour calculator), to the rounding of the white point.
COLOURS = {
    (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
    (0.0, 1.0, 0.0): (87.73, -86.18, 83.18),
    (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
    (1.0, 1.0, 0.0): (97.14, -21.55, 94.48),
    (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
    (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
    (0.5, 0.5, 0.5): (53.39, 0.0, 0.0),
}


def flat(colour: tuple[float, float, float], side: int = 4) -> torch.Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, side, side)


@pytest.mark.parametrize(("colour", "wanted"), COLOURS.items())
def test_lab_of_known_colours(colour: tuple[float, float, float], wanted: tuple[float, float, float]) -> None:
    assert lab(flat(colour))[0, :, 0, 0].tolist() == pytest.approx(wanted, abs=0.02)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.floats(0, 1, width=32)] * 3))
def test_lab_is_its_definition(colour: tuple[float, float, float]) -> None:
    """One colour at a time, as CIE 15 and IEC 61966-2-1 write it."""
    linear = [((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in colour]
    rows = [(0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227)]
    ratio = [
        sum(a * b for a, b in zip(row, linear, strict=True)) / white
        for row, white in zip(rows, (0.95047, 1.0, 1.08883), strict=True)
    ]
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in ratio)
    assert lab(flat(colour))[0, :, 0, 0].tolist() == pytest.approx(
        (116 * y - 16, 500 * (x - y), 200 * (y - z)), abs=2e-3
    )


def test_grey_has_no_colour_and_all_channels_lie_in_about_one() -> None:
    grey = torch.linspace(0, 1, 64).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    assert float(lab(grey)[:, 1:].abs().max()) < 0.01
    corners = torch.tensor(list(COLOURS)).T.reshape(1, 3, 1, 7).repeat_interleave(4, 2).repeat_interleave(4, 3)
    for name, each in zip(CHANNELS, channels(corners, tuple(CHANNELS)), strict=True):
        assert each.shape == (1, CHANNELS[name], 4, 28) and float(each.abs().max()) <= 1.001, name


def test_luminance_and_colour_know_nothing_of_one_another() -> None:
    """The premise of CMC on Lab: neither view can be read off the other."""
    red, green = flat((0.6, 0.2, 0.2)), flat((0.2, 0.36, 0.2))
    (light, colour), (other_light, other) = (channels(each, ("l", "ab")) for each in (red, green))
    assert float((light - other_light).abs().max()) < 0.06 < float((colour - other).abs().max())


def test_edges_are_where_lightness_changes() -> None:
    step = torch.zeros(1, 3, 6, 6)
    step[..., 3:] = 1.0
    right, down = sobel(step)[0]
    assert (
        torch.allclose(right[:, 2:4], torch.ones(6, 2))
        and not bool(right[:, [0, 1, 4, 5]].any())
        and not bool(down.any())
    )
    turned = sobel(step.transpose(2, 3))[0]
    assert torch.allclose(turned[1], right.T) and not bool(turned[0].any())
    assert not bool(sobel(flat((0.3, 0.7, 0.1))).abs().gt(1e-6).any())


def test_a_coarse_copy_forgets_all_but_means() -> None:
    picture = torch.rand(2, 3, 8, 8)
    shuffled = picture.unfold(2, 4, 4).unfold(3, 4, 4).flip(4).permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 8, 8)
    assert not torch.equal(picture, shuffled)
    torch.testing.assert_close(coarse(picture), coarse(shuffled))
    torch.testing.assert_close(coarse(flat((0.5, 0.5, 0.5))), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="6x6 pixels do not divide by 4"):
        coarse(torch.rand(1, 3, 6, 6))
    with pytest.raises(ValueError, match="called depth; there are: l, ab, sobel, coarse"):
        channels(picture, ("l", "depth"))


def test_autocast_rounds_nothing() -> None:
    picture = torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = channels(picture, tuple(CHANNELS))
    for own, wanted in zip(found, channels(picture, tuple(CHANNELS)), strict=True):
        assert torch.equal(own, wanted)


def test_a_gradient_is_finite_everywhere() -> None:
    picture = torch.cat([torch.zeros(1, 3, 4, 4), torch.rand(1, 3, 4, 4)]).requires_grad_()
    torch.stack([each.sum() for each in channels(picture, tuple(CHANNELS))]).sum().backward()
    assert bool(picture.grad.isfinite().all())  # type: ignore[union-attr]
