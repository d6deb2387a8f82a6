"""The parts of a view against torchvision's, on the same tensors. Runs in the peers' environment: `make test-peers`."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from with_torchvision import ensure_torchvision

if not ensure_torchvision():
    pytest.skip("torchvision is not installed here; run `make test-peers`", allow_module_level=True)

from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from multiway.data.blur import blur
from multiway.data.colour import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    ORDERS,
    SATURATION,
    greyscale,
    jitter,
    solarise,
)
from multiway.data.rectangles import resample

FACTORS = torch.tensor([[0.3, 1.7, 1.1], [1.6, 0.2, 0.9], [0.4, 1.8, 1.3], [0.17, -0.4, 0.02]])
# torchvision's greyscale weighs red with 0.2989, Pillow's and ours with 0.299.
LUMA = 2.5e-4


def images(side: int = 16) -> torch.Tensor:
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("number", range(len(ORDERS)))
def test_jitter_in_every_order(number: int) -> None:
    functions = {
        BRIGHTNESS: tv.adjust_brightness,
        CONTRAST: tv.adjust_contrast,
        SATURATION: tv.adjust_saturation,
        HUE: tv.adjust_hue,
    }
    ours = jitter(images(), torch.full((3,), number), FACTORS)
    for row, theirs in enumerate(images()):
        for operation in ORDERS[number]:
            theirs = functions[operation](theirs, float(FACTORS[operation, row]))
        # A hue is a quotient: near grey a difference in luma before it grows. The bulk is equal, and nothing is far.
        away = (ours[row] - theirs).abs()
        assert float(away.median()) < LUMA and float(away.max()) < 0.02


def test_greyscale_and_solarise() -> None:
    assert torch.allclose(greyscale(images())[:, None], tv.rgb_to_grayscale(images()), atol=LUMA)
    assert torch.equal(solarise(images()), tv.solarize(images(), 0.5))


@pytest.mark.parametrize(("side", "kernel"), [(32, 3), (96, 9), (96, 23)])
def test_blur(side: int, kernel: int) -> None:
    sigma = torch.tensor([0.1, 0.9, 2.0], dtype=torch.float64)
    ours = blur(images(side), sigma, kernel)
    for row in range(3):
        theirs = tv.gaussian_blur(images(side)[row], [kernel, kernel], [float(sigma[row])] * 2)
        assert torch.allclose(ours[row], theirs, atol=1e-6)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [7, 16, 25])
def test_resizing(kind: str, size: int) -> None:
    whole = torch.zeros(2, 3), torch.full((2, 3), 16.0)
    ours = resample(images(), *whole, torch.zeros(3, dtype=torch.bool), size, kind)  # type: ignore[arg-type]
    theirs = tv.resize(images(), [size, size], InterpolationMode(kind), antialias=True).clamp(0.0, 1.0)
    assert torch.allclose(ours, theirs, atol=2e-6)
