from dataclasses import replace

import pytest
import torch

from multiway.batch import Batch, ViewSpec
from multiway.data.augment import DRAWS, affine, crop, finish
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


@pytest.mark.parametrize("kind", ["crop", "affine"])
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
