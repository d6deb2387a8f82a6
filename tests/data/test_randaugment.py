"""Each operation against Pillow, pixel by pixel; the drawing of operations against their frequencies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from multiway.data.randaugment import GEOMETRIC, OPERATIONS, TONAL, randaugment, warp

GREY = (128, 128, 128)


def pictures(kind: str, seed: int, side: int = 24) -> np.ndarray:
    """(4, side, side, 3) uint8: noise, a narrow range, few levels, or even."""
    generator = np.random.default_rng(seed)
    low, high, step = {"noise": (0, 256, 1), "narrow": (90, 120, 1), "few": (0, 256, 85), "even": (77, 78, 1)}[kind]
    return (generator.integers(low, high, (4, side, side, 3)) // step * step).astype(np.uint8)


def tensor(squares: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255


def levels(images: torch.Tensor) -> np.ndarray:
    return (images * 255).permute(0, 2, 3, 1).numpy()


PILLOW_TONAL = {
    "autocontrast": lambda image, m: ImageOps.autocontrast(image),
    "equalize": lambda image, m: ImageOps.equalize(image),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(0.1 + 0.18 * m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(0.1 + 0.18 * m),
}


@pytest.mark.parametrize("name", TONAL)
@pytest.mark.parametrize("kind", ["noise", "narrow", "few", "even"])
@pytest.mark.parametrize("magnitude", [0.0, 3.0, 7.0, 10.0])
def test_tonal_operations_equal_pillow(name: str, kind: str, magnitude: float) -> None:
    squares = pictures(kind, seed=1, side=64)
    ours = levels(TONAL[name](tensor(squares), magnitude))
    theirs = [np.asarray(PILLOW_TONAL[name](Image.fromarray(square), magnitude)) for square in squares]
    # Pillow cuts off fractions, and rounds the smoothed picture before the blend magnifies it by up to 0.9.
    allowed = {"equalize": 0.01, "sharpness": 1.46}.get(name, 1.01)
    assert np.abs(ours - np.stack(theirs)).max() <= allowed


def shift(side: int, magnitude: float) -> float:
    return side * 10 / 256 * magnitude / 10


PILLOW_AFFINE = {
    "shear_x": lambda side, m, s: (1, s * 0.03 * m, 0, 0, 1, 0),
    "shear_y": lambda side, m, s: (1, 0, 0, s * 0.03 * m, 1, 0),
    "translate_x": lambda side, m, s: (1, 0, s * shift(side, m), 0, 1, 0),
    "translate_y": lambda side, m, s: (1, 0, 0, 0, 1, s * shift(side, m)),
}


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("magnitude", [0.0, 7.0, 10.0])
def test_geometric_operations_equal_pillow(name: str, sign: float, magnitude: float) -> None:
    squares = pictures("noise", seed=2)
    ours = levels(warp(tensor(squares), GEOMETRIC[name](torch.full((4,), sign), magnitude)))
    for square, mine in zip(squares, ours, strict=True):
        image = Image.fromarray(square)
        if name == "rotate":
            turned = image.rotate(sign * 3 * magnitude, Image.Resampling.BILINEAR, fillcolor=GREY)
        else:
            entries = PILLOW_AFFINE[name](len(square), magnitude, sign)
            turned = image.transform(
                image.size, Image.Transform.AFFINE, entries, Image.Resampling.BILINEAR, fillcolor=GREY
            )
        assert np.abs(mine - np.asarray(turned)).max() <= 1.01


def test_magnitude_zero_moves_nothing() -> None:
    images = tensor(pictures("noise", seed=3))
    for name in GEOMETRIC:
        assert torch.allclose(warp(images, GEOMETRIC[name](torch.ones(4), 0.0)), images, atol=1e-5), name


def draws_for(*steps: tuple[str, bool, float]) -> torch.Tensor:
    """(1, 3 N) draws that choose the named operations."""
    row = [((OPERATIONS.index(name) + 0.5) / len(OPERATIONS), 0.2 if on else 0.7, way) for name, on, way in steps]
    return torch.tensor(row).flatten()[None]


@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.parametrize("second", ["equalize", "rotate", "sharpness"])
def test_operations_come_in_the_drawn_order(first: str, second: str) -> None:
    images = tensor(pictures("noise", seed=4))[:1]

    def one(name: str, picture: torch.Tensor) -> torch.Tensor:
        if name == "identity":
            return picture
        if name in TONAL:
            return TONAL[name](picture, 7.0)
        return warp(picture, GEOMETRIC[name](torch.ones(1), 7.0))

    both = randaugment(images, draws_for((first, True, 0.9), (second, True, 0.9)))
    assert torch.allclose(both, one(second, one(first, images)), atol=1e-6)
    assert torch.equal(randaugment(images, draws_for((first, False, 0.9), (second, False, 0.9))), images)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_rows_are_independent_of_one_another(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(8, 3, 16, 16, generator=generator)
    draws = torch.rand(8, 3 * count, generator=generator)
    whole = randaugment(images, draws)
    order = torch.randperm(8, generator=generator)
    assert torch.allclose(randaugment(images[order], draws[order]), whole[order], atol=1e-6)
    assert torch.allclose(randaugment(images[2:3], draws[2:3]), whole[2:3], atol=1e-6)
    assert whole.min() >= -1e-6 and whole.max() <= 1 + 1e-6


def test_every_operation_is_drawn_equally_often() -> None:
    """On a picture that every operation changes, a row stays as it is in half of the draws and in a tenth of the rest."""
    images = tensor(pictures("narrow", seed=5, side=32))[:1].expand(4000, -1, -1, -1)
    draws = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    changed = (randaugment(images, draws) - images).abs().amax((1, 2, 3)) > 1e-3
    assert float(changed.float().mean()) == pytest.approx(0.5 * 0.9, abs=0.03)
    outcomes = randaugment(images, draws).mul(255).round().flatten(1).unique(dim=0)
    assert len(outcomes) == 1 + len(TONAL) + 2 * len(GEOMETRIC)


def test_a_wrong_number_of_draws_is_named() -> None:
    with pytest.raises(ValueError, match="4 draws a row; RandAugment needs 3 for each"):
        randaugment(torch.zeros(2, 3, 8, 8), torch.zeros(2, 4))
