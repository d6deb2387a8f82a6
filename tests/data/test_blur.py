"""The blur against a slow convolution written out tap by tap."""

import math

import pytest
import torch
from PIL import Image, ImageFilter

from multiway.data.blur import blur, tenth_of


def slow(picture: torch.Tensor, sigma: float, kernel: int) -> torch.Tensor:
    """(S, S) -> (S, S): every pixel's weighted sum over the kernel's square, places outside the picture reflected into it."""
    side, reach = len(picture), kernel // 2
    taps = [math.exp(-(t * t) / (2 * sigma * sigma)) for t in range(-reach, reach + 1)]
    total = sum(taps)

    def inside(place: int) -> int:
        return -place if place < 0 else 2 * (side - 1) - place if place >= side else place

    out = torch.zeros_like(picture)
    for row in range(side):
        for column in range(side):
            out[row, column] = sum(
                taps[i + reach] * taps[j + reach] / total**2 * picture[inside(row + i), inside(column + j)]
                for i in range(-reach, reach + 1)
                for j in range(-reach, reach + 1)
            )
    return out


@pytest.mark.parametrize(("side", "kernel"), [(8, 3), (9, 5), (6, 9), (5, 1), (4, 7)])
def test_equals_the_slow_convolution(side: int, kernel: int) -> None:
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.7, 2.0], dtype=torch.float64)
    blurred = blur(images, sigma, kernel)
    for row in range(3):
        for channel in range(3):
            expected = slow(images[row, channel].double(), float(sigma[row]), kernel)
            assert torch.allclose(blurred[row, channel].double(), expected, atol=1e-6)


def test_a_long_kernel_is_pillows_gaussian() -> None:
    """Pillow approximates a Gaussian of that radius by repeated boxes; MoCo and DINO use it. Away from the edge they agree."""
    images = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    levels = (images * 255).round().to(torch.uint8)
    picture = Image.fromarray(levels[0].permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(1.6))
    pillows = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(48, 48, 3).permute(2, 0, 1)
    ours = blur(levels / 255.0, torch.tensor([1.6], dtype=torch.float64), 23)[0] * 255
    assert float((ours - pillows)[:, 8:-8, 8:-8].abs().max()) < 3.0


def test_an_even_picture_stays() -> None:
    even = torch.full((2, 3, 16, 16), 0.3)
    assert torch.allclose(blur(even, torch.tensor([0.5, 2.0], dtype=torch.float64), 9), even, atol=1e-6)


def test_a_tenth_is_simclrs_kernel() -> None:
    assert [tenth_of(side) for side in (224, 96, 64, 32, 16)] == [23, 9, 7, 3, 3]
