"""Crops against Pillow's own resize of a box, and where they lie."""

import numpy as np
import pytest
import torch
from PIL import Image

from multiway.data.rectangles import rectangles, resample

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
BOXES = [(0, 0, 20, 20), (3.3, 1.7, 11.2, 15.9), (0, 9, 9, 20), (12.25, 0, 20, 6.5)]


def resampled(images: torch.Tensor, boxes: list[tuple[float, ...]], size: int, kind: str, mirror: bool = False):
    box = torch.tensor(boxes, dtype=torch.float32).T
    mirrored = torch.full((len(boxes),), mirror)
    return resample(images, box[:2], box[2:] - box[:2], mirrored, size, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [5, 20, 33])
def test_a_crop_is_pillows_resize_of_that_box(kind: str, size: int) -> None:
    """In Pillow's mode of floats, which rounds nothing; both where the box shrinks and where it grows."""
    images = torch.rand(len(BOXES), 3, 20, 20, generator=torch.Generator().manual_seed(0))
    drawn = resampled(images, BOXES, size, kind)
    for row, box in enumerate(BOXES):
        for channel in range(3):
            picture = Image.fromarray(images[row, channel].numpy(), mode="F")
            expected = np.asarray(picture.resize((size, size), FILTERS[kind], box=box)).clip(0.0, 1.0)
            assert np.abs(drawn[row, channel].numpy() - expected).max() < 3e-6


def test_a_mirrored_crop_is_the_crop_mirrored() -> None:
    images = torch.rand(len(BOXES), 3, 20, 20)
    assert torch.allclose(
        resampled(images, BOXES, 12, "bicubic", mirror=True),
        resampled(images, BOXES, 12, "bicubic").flip(-1),
        atol=2e-6,
    )


def test_rectangles_lie_inside_and_have_the_drawn_area() -> None:
    draws = torch.rand(5000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    width, height, x, y = rectangles(draws, (0.08, 1.0), 4 / 3)
    assert torch.allclose(width * height, 0.08 + 0.92 * draws[:, 0])
    assert float((x.abs() + width).max()) <= 1 + 1e-12 and float((y.abs() + height).max()) <= 1 + 1e-12
    ratio = (width / height).log()
    assert float(ratio.abs().max()) <= np.log(4 / 3) + 1e-12 and abs(float(ratio.mean())) < 0.01
    whole = rectangles(draws, (1.0, 1.0), 4 / 3)
    assert all(torch.equal(each, torch.full_like(each, value)) for each, value in zip(whole, (1, 1, 0, 0), strict=True))
