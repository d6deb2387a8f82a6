"""Figures as arrays: where heat and what is kept are drawn, and that any number of panels can be."""

import io

import numpy as np
import pytest
from PIL import Image

from multiway.workflows.explain_figures import (
    Panel,
    dim_outside,
    distance_dots,
    mosaic,
    panels,
    scatter,
    similarity_tiles,
)

GREY = Image.new("RGB", (64, 64), (100, 100, 100))


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_what_is_kept_is_untouched() -> None:
    kept = np.zeros((4, 4), dtype=bool)
    kept[3, 0] = True
    drawn = dim_outside(GREY, kept)
    assert (drawn[48:, :16] == 100).all() and (drawn[:48] != 100).all() and (drawn[:, 16:] != 100).all()


def test_panels_in_rows_of_different_lengths() -> None:
    panel = Panel(np.zeros((8, 8)), "a title that is far too long for its place\nand $another$")
    one, two = size(panels([[panel]])), size(panels([[panel, panel, panel], [None, panel]]))
    assert two[0] > 2.5 * one[0] and two[1] > 1.7 * one[1]


@pytest.mark.parametrize("side", [1, 3, 14])
def test_tiles_of_any_grid(side: int) -> None:
    assert min(size(similarity_tiles(np.random.default_rng(0).random((side,) * 4)))) > 200


def test_dots_tiles_and_points() -> None:
    assert min(size(distance_dots(np.random.default_rng(0).random((12, 12)) * 50, 40.0))) > 200
    assert min(size(mosaic(np.random.default_rng(0).random((30, 3, 3, 3)), columns=7))) > 200
    places = np.random.default_rng(0).normal(size=(60, 2))
    names = [f"class {number % 15}" for number in range(60)]
    marked = [(places[0], np.zeros((8, 8, 3)))] * 5
    assert min(size(scatter(places, names, marked, False))) > 300
    assert min(size(scatter(places, [""] * 60, marked, True))) > 300
