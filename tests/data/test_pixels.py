"""Squares of rows: what is kept, what is drawn at once, and quicker decoding that is nearly the same."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from shard_files import tar
from toy import ToySource

from multiway.batch import ViewSpec
from multiway.data.decode import decode
from multiway.data.loader import Loader
from multiway.data.open import open_source
from multiway.data.pixels import PixelCache, Pixels
from multiway.data.shards import read_shards
from multiway.data.source import BadRow, Reduces
from multiway.data.view import draw


def photograph(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Smooth, as photographs are, with some grain."""
    dice = np.random.default_rng(seed)
    rough = Image.fromarray(dice.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray(
        np.clip(np.asarray(rough) + dice.normal(0, 3, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    )


def encoded(image: Image.Image, kind: str = "JPEG", **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=90, **more)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("least", "size"),
    [(0, (640, 480)), (60, (80, 60)), (61, (160, 120)), (240, (320, 240)), (241, (640, 480)), (9000, (640, 480))],
)
def test_a_jpeg_is_decoded_no_smaller_than_asked(least, size) -> None:
    assert decode(encoded(photograph((640, 480))), "x", least=least).size == size


def test_other_formats_and_turned_pictures(tmp_path) -> None:
    image = photograph((640, 480))
    for kind in ("PNG", "WEBP", "GIF"):
        data = encoded(image, kind)
        assert decode(data, "x", least=10).tobytes() == decode(data, "x").tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    turned = decode(encoded(image, exif=exif.tobytes()), "x", least=100)
    assert turned.size == (120, 160)
    assert decode(encoded(image, exif=exif.tobytes()), "x").size == (480, 640)
    with pytest.raises(BadRow, match="640x480"):  # the ceiling is of what the file says, not of what is left
        decode(encoded(image), "x", ceiling=100_000, least=10)
    with pytest.raises(BadRow, match="truncated or damaged"):
        decode(encoded(image)[:4000], "x", least=10)


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    members = []
    for number, size in enumerate([(640, 480), (300, 500), (70, 64), (64, 64)]):
        members += [(f"{number}.jpg", encoded(photograph(size, number))), (f"{number}.txt", b"a photograph")]
    tar(tmp_path / "train-0.tar", members)
    return read_shards(str(tmp_path / "train-0.tar"))["train"]


@pytest.mark.parametrize(
    "view",
    [ViewSpec(size=64, crop="center"), ViewSpec(size=64, crop="pad"), ViewSpec(size=56, crop="center", shortest=64)],
)
def test_quicker_is_nearly_the_same(shards, view) -> None:
    assert isinstance(shards, Reduces)
    exact, quick = (Pixels(shards, view, view.size, reduce) for reduce in (False, True))
    for row in range(4):
        gap = (exact.get(row).int() - quick.get(row).int()).abs().float()
        assert gap.mean() < 1.0 and gap.max() <= 25, row  # grey levels
    assert not torch.equal(exact.get(0), quick.get(0)) and torch.equal(exact.get(3), quick.get(3))


def test_quick_resizing_is_of_the_same_place() -> None:
    """Nothing is shifted: of a smooth picture with one hard edge, hardly a pixel differs."""
    for size in ((333, 500), (640, 480), (101, 97), (1000, 40), (50, 40)):
        image = photograph(size).copy()
        image.paste((255, 0, 0), (size[0] // 2, 0, size[0], size[1]))
        for view in (ViewSpec(size=32, crop="center"), ViewSpec(size=28, crop="center", shortest=32)):
            gap = np.abs(draw(image, view).astype(int) - draw(image, view, exact=False).astype(int))
            assert gap.max() <= 2 and (gap > 0).mean() < 0.02


def test_only_training_that_asks_for_it_is_quicker(shards) -> None:
    view = ViewSpec(size=64, crop="center")
    plain, quick = (Loader(shards, view, None, 4, reduce=reduce).batch(0) for reduce in (False, True))
    first = int((plain.sample_index == 0).nonzero())
    assert np.array_equal(plain.images[first].permute(1, 2, 0).numpy(), draw(shards.image(0), view))
    assert not torch.equal(plain.images, quick.images)
    toys = [Loader(ToySource(8), ViewSpec(size=16), None, 8, reduce=reduce).batch(0) for reduce in (False, True)]
    assert torch.equal(toys[0].images, toys[1].images)  # a source that cannot


def test_joined_splits_reduce_too(shards, tmp_path) -> None:
    joined = open_source(f"{tmp_path}/train-0.tar@all")
    assert joined.reduced(0, 60).size == (80, 60) and joined.shard_starts.tolist() == [0, 4]


def test_what_is_not_kept_yet() -> None:
    source, cache = ToySource(8), PixelCache(8, 16)
    for row in (1, 5):
        cache.get(source, row, ViewSpec(size=16))
    assert cache.lacks(np.arange(8)).tolist() == [0, 2, 3, 4, 6, 7]
    assert PixelCache(8, 16, limit=10).lacks(np.array([3, 1])).tolist() == [3, 1]


def test_scenes_are_drawn_at_once_and_others_one_by_one() -> None:
    scenes = Pixels(open_source("scenes:easy,samples=20"), ViewSpec(size=8), 8)
    assert scenes.drawn(np.arange(5)).all() and scenes.draw(np.array([3, 4])).shape == (2, 8, 8, 3)
    assert not Pixels(ToySource(8), ViewSpec(size=8), 8).drawn(np.arange(8)).any()
