"""Views as a function of a row's numbers, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multiway.batch import Batch, ViewSpec
from multiway.data import view_presets
from multiway.data.augment import DRAWS, finish
from multiway.data.blur import blur
from multiway.data.colour import ORDERS, jitter, solarise
from multiway.data.view import normalise
from multiway.data.views import _NUMBERS, PER_VIEW, CropSpec, ViewsSpec, draw_views, kept_side

PLAIN = ViewSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
EVERYTHING = CropSpec(
    scale=(0.2, 1.0), flip=0.5, jitter=0.7, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, grey=0.3, blur=0.5, solarise=0.4,
)  # fmt: skip


def squares(rows: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def numbers(rows: int, views: int = 1, seed: int = 1) -> torch.Tensor:
    shape = (rows, PER_VIEW * views)
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def one(spec: CropSpec, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    return draw_views(images, draws, ViewsSpec((spec,)), PLAIN)[0]


def drawn(draws: torch.Tensor, name: str) -> torch.Tensor:
    return draws[:, _NUMBERS.index(name)]


@pytest.mark.parametrize("views", [view_presets.simclr(32), view_presets.dino(32), view_presets.instdisc(28)])
def test_a_row_is_the_same_in_any_batch(views: ViewsSpec) -> None:
    """Bit for bit: alone, among others, in another order, and across the blocks that a large batch is worked on in."""
    images, draws = squares(200), numbers(200, len(views.views))
    whole = draw_views(images, draws, views, ViewSpec())
    turned = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    for rows in (turned, torch.arange(7, 8), torch.arange(83, 120), torch.arange(1, 200, 2)):
        part = draw_views(images[rows], draws[rows], views, ViewSpec())
        assert all(torch.equal(each, all_[rows]) for each, all_ in zip(part, whole, strict=True))


def test_a_row_is_the_same_on_two_threads() -> None:
    """Large enough that torch shares a row's pixels out."""
    images, draws, views = squares(3, 200), numbers(3, 2), view_presets.simclr(200)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = draw_views(images, draws, views, ViewSpec())
        torch.set_num_threads(2)
        for row in range(3):
            shared = draw_views(images[row : row + 1], draws[row : row + 1], views, ViewSpec())
            assert all(torch.equal(each[0], all_[row]) for each, all_ in zip(shared, alone, strict=True))
    finally:
        torch.set_num_threads(before)


def test_views_of_one_picture_differ_and_keep_their_numbers() -> None:
    two, ten = view_presets.simclr(32), ViewsSpec(view_presets.simclr(32).views * 5)
    images, draws = squares(8), numbers(8, 10)
    few, many = draw_views(images, draws[:, : two.draws], two, PLAIN), draw_views(images, draws, ten, PLAIN)
    assert torch.equal(few[0], many[0]) and torch.equal(few[1], many[1])
    for row in range(8):
        assert len({tuple(view[row].flatten().tolist()) for view in many}) == 10


def test_the_default_is_the_plain_picture() -> None:
    images, draws = squares(5), numbers(5, 2)
    views = draw_views(images, draws, view_presets.identity(32, 2), ViewSpec())
    plain = normalise(images.float() / 255.0, ViewSpec())
    assert torch.equal(views[0], plain) and torch.equal(views[1], plain)


@pytest.mark.parametrize("name", ["flip", "jitter", "grey", "blur", "solarise"])
def test_rows_an_operation_misses_are_untouched(name: str) -> None:
    """Which rows change is exactly which drew it, the others equal a view without the operation bit for bit, and the share is right."""
    images, draws = squares(600, 16), numbers(600)
    with_it, without = replace(EVERYTHING, size=16, **{name: 0.3}), replace(EVERYTHING, size=16, **{name: 0.0})
    # Later operations could hide a change: only the one that is looked at, on a random crop.
    alone: dict[str, object] = {each: 0.0 for each in ("flip", "jitter", "grey", "blur", "solarise") if each != name}
    alone["sigma"] = (0.5, 2.0)  # a blur of 0.1 pixels changes no bit
    with_it, without = replace(with_it, **alone), replace(without, **alone)
    changed = (one(with_it, images, draws) != one(without, images, draws)).flatten(1).any(1)
    assert torch.equal(changed, drawn(draws, name) < 0.3)
    assert abs(float(changed.float().mean()) - 0.3) < 0.05
    always = (one(replace(with_it, **{name: 1.0}), images, draws) != one(without, images, draws)).flatten(1).any(1)
    assert bool(always.all())


def test_grey_rows_have_equal_channels() -> None:
    images, draws = squares(64), numbers(64)
    drawn_views = one(EVERYTHING, images, draws)
    grey = (drawn_views[:, 0] == drawn_views[:, 1]).flatten(1).all(1) & (
        drawn_views[:, 1] == drawn_views[:, 2]
    ).flatten(1).all(1)
    assert torch.equal(grey, drawn(draws, "grey") < 0.3) and 5 < int(grey.sum()) < 40
    first = one(replace(EVERYTHING, grey_first=True), images, draws)[grey]
    assert float((first.amax(1) - first.amin(1)).max()) < 1e-5  # jitter finds no colour to change


def test_operations_come_in_the_published_order() -> None:
    """A view put together by hand from the parts, with the factors that torchvision would take for these numbers."""
    spec = replace(EVERYTHING, scale=(1.0, 1.0), flip=0.0, jitter=1.0, grey=0.0, blur=1.0, solarise=1.0, brightness=1.3)
    images, draws = squares(20), numbers(20)
    pixels = images.float() / 255.0
    brightness = 2.3 * drawn(draws, "brightness")  # from 0, not from 1 - 1.3
    contrast, saturation = (0.6 + 0.8 * drawn(draws, name) for name in ("contrast", "saturation"))
    hue = -0.2 + 0.4 * drawn(draws, "hue")
    order = (drawn(draws, "order") * len(ORDERS)).long()
    expected = jitter(pixels, order, torch.stack([brightness, contrast, saturation, hue]))
    expected = solarise(blur(expected, 0.1 + 1.9 * drawn(draws, "sigma"), 3))
    assert torch.allclose(one(spec, images, draws), expected, atol=1e-6)


def test_all_orders_are_drawn() -> None:
    order = (drawn(numbers(4000), "order") * len(ORDERS)).long()
    counts = torch.bincount(order, minlength=len(ORDERS))
    assert len(counts) == len(ORDERS) and int(counts.min()) > 110  # 167 expected each


@pytest.mark.parametrize("low", [0.0, 1.0 - 2.0**-53])
def test_numbers_at_the_ends_of_their_range(low: float) -> None:
    views = view_presets.dino(32)
    for view in draw_views(squares(2), torch.full((2, views.draws), low, dtype=torch.float64), views, PLAIN):
        assert bool(torch.isfinite(view).all()) and float(view.min()) >= 0.0 and float(view.max()) <= 1.0


def test_under_autocast_pixels_stay_exact() -> None:
    views, images, draws = view_presets.simclr(32), squares(4), numbers(4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = draw_views(images, draws, views, PLAIN)
    assert all(torch.equal(a, b) for a, b in zip(inside, draw_views(images, draws, views, PLAIN), strict=True))


def test_finish_leaves_plain_images_only_where_asked() -> None:
    images, views = squares(6), view_presets.simclr(32)
    batch = Batch(images=images, draws=numbers(6, 2))
    bare = finish(batch, ViewSpec(), views)
    assert bare.images is None and len(bare.views) == 2
    both = finish(batch, ViewSpec(), replace(views, plain=True))
    assert both.images is not None and torch.equal(both.images, normalise(images.float() / 255.0, ViewSpec()))
    assert all(torch.equal(a, b) for a, b in zip(bare.views, both.views, strict=True))
    assert both.draws is batch.draws


def test_finish_augments_images_beside_views() -> None:
    """As methods with captions beside views (SLIP) want it: the images' own numbers come first."""
    view, views = ViewSpec(augment="crop"), replace(view_presets.simclr(32), plain=True)
    images, own, others = squares(6), torch.rand(6, DRAWS["crop"], dtype=torch.float64), numbers(6, 2)
    both = finish(Batch(images=images, draws=torch.cat([own, others], 1)), view, views)
    alone = finish(Batch(images=images, draws=own), view)
    assert both.images is not None and alone.images is not None and torch.equal(both.images, alone.images)
    expected = draw_views(images, others, views, view)
    assert all(torch.equal(a, b) for a, b in zip(both.views, expected, strict=True))


def test_a_margin_is_kept_for_the_views_and_reduced_for_the_plain_picture() -> None:
    view, views = ViewSpec(size=16, margin=1.5), replace(view_presets.simclr(16), plain=True)
    assert kept_side(view, views) == 24 and kept_side(view, None) == view.kept == 16
    images = squares(2, 24) // 2 + 64  # no black or white, at which Pillow cuts between its two passes
    made = finish(Batch(images=images, draws=numbers(2, 2)), replace(view, mean=(0, 0, 0), std=(1, 1, 1)), views)
    assert made.images is not None
    for row in range(2):
        picture = Image.fromarray(images[row].permute(1, 2, 0).numpy()).resize((16, 16), Image.Resampling.BICUBIC)
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        assert float((made.images[row] * 255 - expected).abs().max()) < 1.01  # Pillow also rounds half-way


@pytest.mark.parametrize("given_draws", [None, numbers(4, 1), numbers(4, 3)])
def test_a_batch_drawn_for_other_views_is_refused(given_draws: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="2 views take 30 draws a row"):
        finish(Batch(images=squares(4), draws=given_draws), ViewSpec(), view_presets.simclr(32))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", (0.9, 0.2)), ("scale", (0.0, 1.0)), ("scale", (0.5, 1.5)), ("aspect", 0.75), ("size", 0),
        ("flip", 1.1), ("jitter", -0.1), ("grey", float("nan")), ("blur", 2.0), ("solarise", -1.0),
        ("brightness", -0.4), ("hue", 0.6), ("sigma", (0.0, 2.0)), ("sigma", (2.0, 0.1)), ("kernel", 4), ("kernel", 0),
        ("kernel", 65), ("threshold", 300), ("resample", "nearest"),
    ],
)  # fmt: skip
def test_specs_that_cannot_be_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"CropSpec.{field} is .*; expected "):
        CropSpec(**{"blur": 0.5, field: value})  # type: ignore[arg-type]


def test_no_views_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ViewsSpec.views is empty"):
        ViewsSpec(())


SHARES = st.floats(0.0, 1.0)
SPECS = st.builds(
    CropSpec,
    size=st.integers(5, 24),
    scale=st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)).map(lambda pair: (min(pair), max(pair))),
    aspect=st.floats(1.0, 4.0),
    resample=st.sampled_from(["bilinear", "bicubic"]),
    flip=SHARES, jitter=SHARES, brightness=st.floats(0, 3), contrast=st.floats(0, 3), saturation=st.floats(0, 3),
    hue=st.floats(0, 0.5), grey=SHARES, grey_first=st.booleans(), blur=SHARES, solarise=SHARES,
    sigma=st.tuples(st.floats(0.05, 5), st.floats(0.05, 5)).map(lambda pair: (min(pair), max(pair))),
    kernel=st.sampled_from([None, 1, 3, 9]), threshold=st.integers(0, 256),
)  # fmt: skip


@given(SPECS, st.integers(6, 24), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_whatever_the_spec_pixels_stay_pixels(spec: CropSpec, side: int, seed: int) -> None:
    view = one(spec, squares(3, side, seed), numbers(3, 1, seed))
    assert view.shape == (3, 3, spec.size, spec.size) and view.dtype == torch.float32
    assert float(view.min()) >= 0.0 and float(view.max()) <= 1.0
