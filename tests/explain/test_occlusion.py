"""Occlusion: a linear score gives its own weights back, overlapping windows are averaged, and what is not seen changes nothing."""

import pytest
import torch
from toy import toy_picture

from multiway.config import ConfigError
from multiway.explain.occlusion import _baseline, occlude, occlusion, starts_of
from multiway.explain.pairs import CannotShow, Look, Pairs

WEIGHTS = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def linear(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Row 1 is scored twice as much as row 0."""
    return (images * WEIGHTS).sum((1, 2, 3)) * (1.0 + rows)


def test_a_linear_score_gives_its_weights() -> None:
    """On a picture of ones covered with zeros, each cell is the sum of the weights in it."""
    heat, whole = occlude(linear, torch.ones(2, 3, 12, 12), torch.zeros(2, 3), 3, 3)
    cells = WEIGHTS.sum(0).reshape(4, 3, 4, 3).sum((1, 3))
    torch.testing.assert_close(heat, torch.stack([cells, 2 * cells]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole, WEIGHTS.sum() * torch.tensor([1.0, 2.0]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("window", "stride", "batch"), [(4, 2, 64), (5, 3, 7), (6, 4, 1), (12, 12, 64), (1, 1, 50)])
def test_overlapping_windows_by_a_slow_twin(window: int, stride: int, batch: int) -> None:
    baseline = torch.tensor([[0.1, -0.2, 0.3], [1.0, 0.0, -1.0]])
    heat, whole = occlude(linear, IMAGES, baseline, window, stride, batch)
    pixels, times = torch.zeros(2, 12, 12), torch.zeros(12, 12)
    starts = starts_of(12, window, stride)
    for top in starts:
        for left in starts:
            covered = IMAGES.clone()
            covered[:, :, top : top + window, left : left + window] = baseline[:, :, None, None]
            fall = whole - linear(covered, torch.arange(2))
            pixels[:, top : top + window, left : left + window] += fall[:, None, None]
            times[top : top + window, left : left + window] += 1
    assert (times > 0).all()
    expected = pixels / times
    cell = 12 // heat.shape[1]
    large = heat.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    torch.testing.assert_close(large, expected, atol=1e-4, rtol=1e-4)


def test_windows_cover_the_whole_side() -> None:
    assert starts_of(10, 4, 4) == [0, 4, 6] and starts_of(8, 8, 3) == [0]
    for wrong in ((0, 1), (11, 1), (4, 5), (4, 0)):
        with pytest.raises(ConfigError, match="expected a window"):
            starts_of(10, *wrong)


def test_what_a_score_does_not_see_has_no_heat() -> None:
    def left_half(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return images[:, :, :, :6].square().sum((1, 2, 3))

    heat, _ = occlude(left_half, IMAGES, torch.zeros(2, 3), 3, 3)
    assert (heat[:, :, 2:] == 0).all() and (heat[:, :, :2] > 0).all()


@pytest.mark.parametrize("name", ["clip", "filip", "albef", "vilt"])
def test_every_kind_of_model_has_it(models, name: str) -> None:
    model = models[name]
    pictures = [toy_picture("red", "left"), toy_picture("blue", "top")]
    found = occlusion(Pairs(model, pictures, ["red on the left", "blue"], Look(batch=5)))
    assert found.heat.shape == (2, 8, 8) and found.heat.abs().sum() > 0
    # The scores are the model's own.
    image, text = model.encode_image(pictures, tokens=True), model.encode_text(["red on the left", "blue"], tokens=True)
    own = model.match(image, text) if "match" in model.abilities() else model.compare(image, text).diagonal()
    torch.testing.assert_close(found.score, own, atol=1e-4, rtol=1e-4)
    # One cell by hand, in a grid of windows that do not overlap.
    look = Look(window=8, stride=8, baseline="#ff0000")
    heat = occlusion(Pairs(model, pictures, ["red on the left", "blue"], look)).heat
    pixels = model.processor.images(pictures)
    view = model.processor.view
    red = (torch.tensor([1.0, 0.0, 0.0]) - torch.tensor(view.mean)) / torch.tensor(view.std)
    pixels[:, :, 8:, :8] = red[:, None, None]
    covered = model.encode_image(pixels, tokens=True)
    less = model.match(covered, text) if "match" in model.abilities() else model.compare(covered, text).diagonal()
    torch.testing.assert_close(heat[:, 1, 0], own - less, atol=1e-4, rtol=1e-3)


def test_colours_scores_and_refusals(models) -> None:
    picture, text = [toy_picture("red", "left")], ["red"]
    by_match = occlusion(Pairs(models["albef"], picture, text))
    likeness = occlusion(Pairs(models["albef"], picture, text, Look(score="similarity")))
    assert by_match.score_name == "log-odds of a match" and likeness.score_name == "similarity"
    assert not torch.allclose(by_match.heat, likeness.heat)
    white, mean = (occlusion(Pairs(models["clip"], picture, text, Look(baseline=b))).heat for b in ("white", "mean"))
    assert not torch.allclose(white, mean)
    pixels = models["clip"].processor.images(picture)
    border = _baseline(Pairs(models["clip"], picture, text, Look(baseline="border")))
    ring = torch.ones(16, 16, dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    torch.testing.assert_close(border, pixels[:, :, ring].mean(2))
    blur = _baseline(Pairs(models["clip"], picture, text, Look(baseline="blur")))
    assert blur.shape == pixels.shape and blur.std() < pixels.std()
    plain = torch.full((1, 3, 16, 16), 0.7)
    torch.testing.assert_close(_baseline(Pairs(models["clip"], plain, text, Look(baseline="blur"))), plain)
    covered = occlusion(Pairs(models["clip"], plain, text, Look(baseline="blur"))).heat
    assert covered.abs().max() < 1e-5  # out of focus, a picture of one colour is the same
    for wrong in ("rainbow", "#12345", "#gggggg"):
        with pytest.raises(ConfigError, match="expected mean, border, blur, black, grey, white, or a colour"):
            occlusion(Pairs(models["clip"], picture, text, Look(baseline=wrong)))
    with pytest.raises(CannotShow, match="no match of a picture"):
        occlusion(Pairs(models["clip"], picture, text, Look(score="match")))
    with pytest.raises(CannotShow, match="no text is given"):
        occlusion(Pairs(models["clip"], picture))
    with pytest.raises(ConfigError, match="one picture at a time"):
        Look(batch=0)
    with pytest.raises(ConfigError, match="auto, match, similarity, caption"):
        Look(score="luck")  # type: ignore[arg-type]
