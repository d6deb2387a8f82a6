import numpy as np
import pytest
import torch
from PIL import Image

from multiway.batch import ViewSpec
from multiway.data.view import draw, draw_batch, on_background


def test_transparency_shows_the_background() -> None:
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    picture.putpixel((0, 0), (255, 0, 0, 255))
    white = np.asarray(on_background(picture, 255))
    assert white[0, 0].tolist() == [255, 0, 0] and white[1, 1].tolist() == [255, 255, 255]
    assert np.asarray(on_background(picture, 10))[1, 1].tolist() == [10, 10, 10]
    for mode in ("L", "LA", "P", "1", "CMYK"):
        assert on_background(Image.new(mode, (3, 3)), 255).mode == "RGB"


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (33, 7), (16, 16), (3, 50)])
@pytest.mark.parametrize("how", ["pad", "center", "squash"])
def test_always_a_square(size: tuple[int, int], how: str) -> None:
    assert draw(Image.new("RGB", size), ViewSpec(size=16, crop=how)).shape == (16, 16, 3)


def test_what_each_crop_keeps() -> None:
    wide = Image.new("RGB", (64, 32), (0, 0, 0))
    wide.paste((200, 0, 0), (0, 0, 16, 32))  # a red band at the left end
    padded, cut, squashed = (draw(wide, ViewSpec(size=32, crop=how)) for how in ("pad", "center", "squash"))
    assert padded[0].min() == 255 and padded[16, 1].tolist() == [200, 0, 0]  # all of it, on white
    assert cut[:, 2:].max() == 0  # the band is cut away (its edge blurs a little)
    assert squashed[16, 1, 0] == 200 and squashed[16, 31].max() == 0


def test_equal_to_clips_published_preprocessing() -> None:
    """`center` is what transformers' CLIPImageProcessor does, to the last grey level."""
    from transformers import CLIPImageProcessor

    theirs = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    for seed, shape in enumerate([(31, 57, 3), (57, 31, 3), (24, 24, 3), (100, 25, 3)]):
        picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
        wanted = theirs([picture], return_tensors="pt")["pixel_values"]
        assert torch.allclose(draw_batch([picture], ViewSpec(size=24)), wanted, atol=1e-5), shape


def test_nothing_gives_an_empty_batch() -> None:
    assert draw_batch([], ViewSpec(size=8)).shape == (0, 3, 8, 8)
