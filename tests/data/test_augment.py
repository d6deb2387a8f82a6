from dataclasses import replace

import pytest
import torch

from multiway.batch import Batch, ViewSpec
from multiway.data.augment import DRAWS, affine, augment, crop, finish, resized_crop
from multiway.data.view import normalise


def ramp(size: int = 20) -> torch.Tensor:
    """(1, 2, size, size): the pixel's own x and y in [-1, 1]."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)])[None]


def test_crop_cuts_where_it_is_told() -> None:
    """On a ramp the crop's corner pixels say where they came from."""
    picture = ramp()
    whole = crop(picture, torch.tensor([[0.9999999, 0.5, 0.5]]), 20)
    assert torch.allclose(whole, picture, atol=1e-4)
    left_top = crop(picture, torch.tensor([[0.0, 0.0, 0.0]]), 20, smallest=0.5)  # half the side, pushed left and up
    assert abs(float(left_top[0, 0].mean()) + 0.5) < 0.02 and abs(float(left_top[0, 1].mean()) + 0.5) < 0.02
    right = crop(picture, torch.tensor([[0.0, 1.0, 0.5]]), 20, smallest=0.5)
    assert abs(float(right[0, 0].mean()) - 0.5) < 0.02 and abs(float(right[0, 1].mean())) < 0.02


def test_affine_turns_by_the_drawn_angle() -> None:
    middle = torch.full((1, 5), 0.5)
    middle[0, 0] = 0.8  # side 1: 1 - zoom + 1.25 zoom 0.8
    still = affine(ramp(), middle, 20)
    assert torch.allclose(still, ramp(), atol=1e-4)
    turned = middle.clone()
    turned[0, 3] = 1.0
    quarter = affine(ramp(), turned, 20, angle=90.0)
    # A quarter turn exchanges the axes (up to a sign).
    assert torch.allclose(quarter[0, 0].abs(), ramp()[0, 1].abs(), atol=1e-3)


def test_resized_crop_cuts_the_drawn_area() -> None:
    """On a ramp the values' spread says how much of the picture was taken, and their mean from where."""
    draws = torch.rand(2000, 4, generator=torch.Generator().manual_seed(0))
    cut = resized_crop(ramp(40).expand(2000, -1, -1, -1), draws, 16)
    # A ramp sampled evenly over a width w spans w (1 - 1/16) of its range between first and last sample.
    width = (cut[:, 0, 0, -1] - cut[:, 0, 0, 0]) / (2 * 15 / 16)
    height = (cut[:, 1, -1, 0] - cut[:, 1, 0, 0]) / (2 * 15 / 16)
    inside = (width < 0.96) & (height < 0.96)  # at the picture's edge half a pixel repeats it
    assert torch.allclose((width * height)[inside], (0.2 + 0.8 * draws[:, 0])[inside], atol=0.03)
    ratio = width / height
    assert 0.72 < ratio.min() < 0.78 and 1.28 < ratio.max() < 1.38
    # Everything inside the picture, and its left and right ends are reached alike.
    middle = cut[:, 0].mean((1, 2))
    free = 1 - width.clamp(max=1)
    assert bool((middle.abs() <= free + 0.03).all()) and abs(float(middle.mean())) < 0.03
    whole = resized_crop(ramp(), torch.tensor([[0.9999999, 0.5, 0.5, 0.5]]), 20)
    assert torch.allclose(whole, ramp(), atol=1e-4)


def test_a_mirrored_crop_is_the_crop_mirrored() -> None:
    images, draws = torch.rand(6, 3, 20, 20), torch.rand(6, 5)
    draws[:3, 4], draws[3:, 4] = 0.49, 0.5
    crops, mirrored = resized_crop(images, draws[:, :4], 12), resized_crop(images, draws, 12)
    assert torch.allclose(mirrored[:3], crops[:3].flip(-1), atol=1e-5) and torch.equal(mirrored[3:], crops[3:])


@pytest.mark.parametrize("kind", ["resized_crop", "randaugment_unflipped", "crop", "affine", "randaugment"])
def test_only_randaugment_mirrors(kind: str) -> None:
    """The left half is dark; only a mirrored picture has its darker side on the right."""
    images = torch.zeros(400, 3, 16, 16)
    images[..., 8:] = 1.0
    draws = torch.rand(400, DRAWS[kind], generator=torch.Generator().manual_seed(1))
    draws[:, 2:3] = 0.5  # crops from the middle, so that both halves are seen
    seen = augment(images, draws, ViewSpec(size=16, augment=kind))
    mirrored = seen[..., :8].mean((1, 2, 3)) > seen[..., 8:].mean((1, 2, 3))
    share = float(mirrored.float().mean())
    assert 0.4 < share < 0.6 if kind == "randaugment" else share == 0.0


def test_draws_of_another_augmentation_are_refused() -> None:
    with pytest.raises(ValueError, match="'randaugment' takes 11 draws a row; the batch has 5"):
        augment(torch.zeros(2, 3, 8, 8), torch.zeros(2, 5), ViewSpec(size=8, augment="randaugment"))


@pytest.mark.parametrize("kind", [kind for kind in DRAWS if kind != "none"])
def test_rows_are_independent_and_replayed(kind: str) -> None:
    view = ViewSpec(size=8, augment=kind)
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    draws = torch.rand(6, DRAWS[kind], dtype=torch.float64)
    whole = finish(Batch(images=images, draws=draws), view).images
    again = finish(Batch(images=images[2:4], draws=draws[2:4]), view).images
    assert torch.equal(whole[2:4], again)
    assert whole.shape == (6, 3, 8, 8) and not torch.allclose(
        whole[0], finish(Batch(images=images, draws=draws.flip(0)), view).images[0]
    )


def test_without_draws_only_normalised() -> None:
    view = ViewSpec(size=8, augment="affine")
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(finish(Batch(images=images), view).images, normalise(images.float() / 255, view))
    ready = Batch(images=torch.zeros(1, 3, 8, 8))
    assert finish(ready, replace(view, size=8)) is ready  # floats are already finished
