"""The papers' settings at the papers' size, and that they work at 32 pixels."""

import pytest
import torch

from multiway import config
from multiway.batch import ViewSpec
from multiway.data import view_presets
from multiway.data.views import ViewsSpec, draw_views

PRESETS = [name for name in view_presets.__all__ if name != "identity"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_work_at_32_pixels(name: str) -> None:
    views = getattr(view_presets, name)(32)
    squares = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    drawn = draw_views(squares, torch.rand(5, views.draws, dtype=torch.float64), views, ViewSpec())
    assert [tuple(each.shape) for each in drawn] == [(5, 3, kind.size, kind.size) for kind in views.views]
    assert all(bool(torch.isfinite(each).all()) for each in drawn)
    assert {kind.size for kind in views.views} <= {32, 16}


def test_sizes_of_multi_crop() -> None:
    assert [kind.size for kind in view_presets.swav().views] == [224] * 2 + [96] * 6
    assert [kind.size for kind in view_presets.dino(32).views] == [32] * 2 + [16] * 8
    assert [kind.size for kind in view_presets.dino(64, local=32, count=3).views] == [64, 64, 32, 32, 32]
    assert [kind.scale for kind in view_presets.dino().views][1:3] == [(0.4, 1.0), (0.05, 0.4)]
    assert view_presets.swav(count=0).views[0].scale == (0.08, 1.0)
    assert [kind.scale for kind in view_presets.dino(border=0.14).views][1:3] == [(0.14, 1.0), (0.05, 0.14)]


@pytest.mark.parametrize(
    ("views", "pixels"),
    [
        (view_presets.swav(count=0), 100_352),
        (view_presets.swav(160, 96, 4), 88_064),
        (view_presets.swav(), 155_648),
        (view_presets.dino(), 174_080),
    ],
)
def test_pixels_of_a_picture_that_multi_crop_looks_at(views: ViewsSpec, pixels: int) -> None:
    """SwAV, section 3.2: 2 x 160 + 4 x 96 cost less than 2 x 224, from which they are counted here."""
    assert sum(kind.size**2 for kind in views.views) == pixels


def test_published_settings() -> None:
    """A line per paper, in torchvision's order of arguments; looked up in the released code."""

    def colours(views: ViewsSpec) -> list[tuple[float, ...]]:
        return [(k.jitter, k.brightness, k.contrast, k.saturation, round(k.hue, 3), k.grey) for k in views.views]

    def rest(views: ViewsSpec) -> list[tuple[float, ...]]:
        return [(k.scale[0], k.flip, k.blur, k.taps, k.solarise) for k in views.views]

    assert colours(view_presets.simclr()) == [(0.8, 0.8, 0.8, 0.8, 0.2, 0.2)] * 2
    assert rest(view_presets.simclr()) == [(0.08, 0.5, 0.5, 23, 0.0)] * 2
    assert colours(view_presets.simclr_cifar()) == [(0.8, 0.4, 0.4, 0.4, 0.1, 0.2)] * 2
    assert [kind.blur for kind in view_presets.simclr_cifar().views] == [0.0, 0.0]
    assert colours(view_presets.moco_v1()) == [(1.0, 0.4, 0.4, 0.4, 0.4, 0.2)] * 2
    assert colours(view_presets.invaspread()) == [(1.0, 0.4, 0.4, 0.4, 0.4, 0.2)] * 2
    assert rest(view_presets.invaspread())[0][:3] == (0.2, 0.5, 0.0)
    assert colours(view_presets.moco_v2()) == [(0.8, 0.4, 0.4, 0.4, 0.1, 0.2)] * 2
    assert rest(view_presets.moco_v2()) == [(0.2, 0.5, 0.5, 23, 0.0)] * 2
    assert colours(view_presets.byol()) == [(0.8, 0.4, 0.4, 0.2, 0.1, 0.2)] * 2
    assert rest(view_presets.byol()) == [(0.08, 0.5, 1.0, 23, 0.0), (0.08, 0.5, 0.1, 23, 0.2)]
    assert rest(view_presets.moco_v3(smallest=0.2))[0] == (0.2, 0.5, 1.0, 23, 0.0)
    assert colours(view_presets.swav()) == [(0.8, 0.8, 0.8, 0.8, 0.2, 0.2)] * 8
    assert rest(view_presets.swav())[2] == (0.05, 0.5, 0.5, 23, 0.0)
    assert [(kind.blur, kind.solarise) for kind in view_presets.dino().views][:3] == [
        (1.0, 0.0),
        (0.1, 0.2),
        (0.5, 0.0),
    ]
    assert colours(view_presets.mae()) == [(0.0,) * 6] and view_presets.instdisc_cifar().views[0].flip == 0.0
    assert view_presets.instdisc().views[0].grey_first and not view_presets.moco_v2().views[0].grey_first


def test_settings_survive_json() -> None:
    views = view_presets.dino(32)
    assert config.from_json(ViewsSpec, config.to_json(views)) == views
