"""Each operation against Pillow's, or against Python's own colour conversion."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from multiway.data.colour import BRIGHTNESS, CONTRAST, HUE, ORDERS, SATURATION, greyscale, jitter, shift_hue, solarise

LEVEL = 1.0 / 255.0
ENHANCERS = {BRIGHTNESS: ImageEnhance.Brightness, CONTRAST: ImageEnhance.Contrast, SATURATION: ImageEnhance.Color}


def pictures(count: int, side: int = 12) -> tuple[torch.Tensor, list[Image.Image]]:
    """The same pictures as (n, 3, S, S) in [0, 1] and as Pillow's; smooth, bright, dark and grey parts among them."""
    levels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    levels[:, 0] = levels[:, 0, :, :1]  # a grey line
    levels[:, 1], levels[:, 2] = 0, 255
    tensors = torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 255.0
    return tensors, [Image.fromarray(each) for each in levels]


def levels_of(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255.0


def only(operation: int, factors: list[float]) -> torch.Tensor:
    """(4, n) factors that leave the other operations without effect."""
    table = torch.ones(4, len(factors))
    table[HUE] = 0.0
    table[operation] = torch.tensor(factors)
    return table


@pytest.mark.parametrize("operation", [BRIGHTNESS, CONTRAST, SATURATION])
def test_blends_are_pillows(operation: int) -> None:
    factors = [0.0, 0.2, 0.9, 1.0, 1.4, 1.8]
    images, originals = pictures(len(factors))
    ours = jitter(images, torch.zeros(len(factors), dtype=torch.long), only(operation, factors))
    for row, factor in enumerate(factors):
        expected = levels_of(ENHANCERS[operation](originals[row]).enhance(factor))
        # Pillow cuts the result off to whole levels, and rounds the grey that it blends with.
        allowed = 1.0 + 0.5 * abs(1.0 - factor)
        assert float((ours[row] - expected).abs().max()) < allowed * LEVEL + 1e-6, factor
    assert float((ours[0] - images[0]).abs().max()) > 0.2


def test_hue_is_pythons_own() -> None:
    shifts = [-0.5, -0.2, -0.03, 0.0, 0.1, 0.31, 0.5]
    images, _ = pictures(len(shifts), side=8)
    turned = shift_hue(images, torch.tensor(shifts))
    for row, shift in enumerate(shifts):
        for y in range(8):
            for x in range(8):
                hue, saturation, value = colorsys.rgb_to_hsv(*images[row, :, y, x].tolist())
                expected = colorsys.hsv_to_rgb((hue + shift) % 1.0, saturation, value)
                assert np.allclose(turned[row, :, y, x].numpy(), expected, atol=2e-6)


def test_greyscale_and_solarise_are_pillows() -> None:
    images, originals = pictures(3)
    for row, picture in enumerate(originals):
        grey = torch.from_numpy(np.array(ImageOps.grayscale(picture))).float() / 255.0
        assert float((greyscale(images)[row] - grey).abs().max()) < 0.51 * LEVEL
        for threshold in (0, 128, 200, 256):
            expected = levels_of(ImageOps.solarize(picture, threshold))
            assert torch.allclose(solarise(images, threshold)[row], expected, atol=1e-6)


@pytest.mark.parametrize("number", range(len(ORDERS)))
def test_operations_come_in_the_rows_order(number: int) -> None:
    """Against the same operations one after another; strong ones, so that clamping makes every order its own result."""
    images, _ = pictures(2)
    factors = torch.tensor([[1.8, 0.4], [1.7, 1.6], [1.6, 0.3], [0.2, -0.15]])
    step = images
    for operation in ORDERS[number]:
        alone = only(operation, factors[operation].tolist())
        step = jitter(step, torch.zeros(2, dtype=torch.long), alone)
    assert torch.allclose(jitter(images, torch.full((2,), number), factors), step, atol=1e-5)


def test_orders_differ_and_rows_keep_to_themselves() -> None:
    images = pictures(1)[0].expand(24, -1, -1, -1)
    factors = torch.tensor([1.8, 1.7, 1.6, 0.2])[:, None].expand(4, 24)
    drawn = jitter(images, torch.arange(24), factors)
    # Brightness and hue commute, and so do brightness and saturation but for clamping: not all 24 need differ.
    assert len({tuple(row.flatten().mul(1e4).round().tolist()) for row in drawn}) >= 12
    assert torch.equal(jitter(images[:5], torch.arange(5), factors[:, :5]), drawn[:5])
    assert torch.equal(jitter(images[:1], torch.tensor([17]), factors[:, :1])[0], drawn[17])
