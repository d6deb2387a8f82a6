"""Hostile and broken uploads, each refused with its cause; and pictures that are drawn as the model's own preprocessing draws them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from hostile_pictures import HOSTILE, jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from served import SOURCE, b64, png
from tuning import VIEW

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.data.view import from_squares
from multiway.serve.limits import Limits
from multiway.serve.problems import Problem
from multiway.serve.uploads import Squares, other_content, picture_bytes

LIMITS = Limits(pixels=25_000_000)


def drawn(*pictures: bytes, view: ViewSpec = VIEW) -> np.ndarray:
    squares = Squares(view, LIMITS)
    try:
        return asyncio.run(squares.draw(pictures))
    finally:
        squares.close()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_are_refused(name: str) -> None:
    data, cause = HOSTILE[name]
    with pytest.raises(Problem, match=cause) as problem:
        drawn(data)
    assert problem.value.status == 422 and problem.value.kind == "picture" and problem.value.remedy


def test_the_picture_that_is_meant_is_named() -> None:
    with pytest.raises(Problem, match="picture 2 of 3"):
        drawn(png(0), png(1)[:-30], png(2))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300), st.integers(0, 10_000), st.sampled_from(("png", "jpeg")))
def test_no_bytes_bring_anything_but_a_refusal(noise: bytes, at: int, kind: str) -> None:
    """Pictures with bytes overwritten anywhere: drawn, or refused as pictures."""
    whole = png(0) if kind == "png" else jpeg()
    place = at % len(whole)
    for data in (noise, whole[:place] + noise + whole[place + len(noise) :]):
        try:
            assert drawn(data).shape == (1, 16, 16, 3)
        except Problem as problem:
            assert problem.kind == "picture"


def test_squares_are_what_the_processor_draws() -> None:
    pictures = [SOURCE.image(0), Image.new("RGBA", (40, 30), (9, 200, 9, 90)), Image.new("L", (7, 20), 80)]
    for crop in ("center", "squash", "pad"):
        view = ViewSpec(size=16, crop=crop)  # type: ignore[arg-type]
        squares = drawn(*(png(picture) for picture in pictures), view=view)
        assert squares.dtype == np.uint8 and squares.shape == (3, 16, 16, 3)
        assert torch.equal(from_squares(torch.from_numpy(squares), view), Processor(view).images(pictures))


def test_ordinary_pictures_are_nothing_else() -> None:
    assert other_content(png(0)) == other_content(jpeg()) == ""
    # An end-of-archive mark that ends no archive: four bytes that may stand in any picture.
    assert other_content(png(0) + b"PK\x05\x06" + bytes(18)) in ("", "a ZIP archive")
    assert other_content(jpeg() + b"PK\x05\x06 no archive") == ""


def test_base64_with_and_without_its_head() -> None:
    assert picture_bytes(b64(0)) == picture_bytes("data:image/png;base64," + b64(0)) == picture_bytes(png(0)) == png(0)


@pytest.mark.parametrize(
    ("given_", "cause"),
    [
        ("https://example.org/cat.png", "an address, and nothing is fetched"),
        ("file:///etc/passwd", "an address"),
        ("http://169.254.169.254/latest/meta-data/", "an address"),
        ("ftp:host/a", "an address"),
        ("/etc/passwd", "not"),
        ("../../secret.png", "a path, and no file is opened"),
        ("~/cat.jpg", "a path"),
        ("C:\\cat.png", "an address|a path"),
        ("\\\\host\\share\\a.png", "a path"),
        ("data:image/png,%89PNG", "base64"),
        ("data:text/html;base64,", "empty"),
        ("AAA", "base64"),
        ("", "empty"),
        ("ÄÖ", "base64"),
        (7, "given int"),
        (None, "given NoneType"),
    ],
)
def test_names_are_never_followed(given_: object, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **options: object) -> None:
        raise AssertionError("something was opened")

    monkeypatch.setattr("builtins.open", forbidden)
    monkeypatch.setattr("pathlib.Path.open", forbidden)
    monkeypatch.setattr("socket.socket.connect", forbidden)
    with pytest.raises(ValueError, match=cause):
        picture_bytes(given_)


def test_words_that_happen_to_be_base64_are_no_picture() -> None:
    """`etc/passwd` without the dot is valid base64: it is decoded, never opened."""
    with pytest.raises(Problem, match="not a picture"):
        drawn(picture_bytes("etc/passwdAB"))
