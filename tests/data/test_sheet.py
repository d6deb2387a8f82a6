"""The contact sheet: every picture in its cell, on white, with readable words below."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from multiway.data.sheet import _wrapped, contact_sheet, spread_rows
from multiway.data.source import BadRow, DataError, Row

COLOURS = [(255, 0, 0), (0, 160, 0), (0, 0, 255), (200, 0, 200)]


class Colours:
    name, split, classes, templates, fingerprint = "colours", "train", (), (), ""

    def __init__(self, captions=("red", "green", "blue", "violet", "broken", "glass")):
        self.captions = captions

    def __len__(self):
        return len(self.captions)

    def row(self, index):
        return Row(str(index), index, (self.captions[index],), where=f"row {index}")

    def image(self, index):
        if index == 4:
            raise BadRow("row 4: the picture is truncated")
        return Image.new("RGB", (300, 300), COLOURS[index]) if index < 4 else Image.new("RGBA", (20, 20))


def test_pictures_stand_in_their_cells():
    sheet = contact_sheet(Colours(), range(6), columns=3, side=100)
    assert sheet.mode == "RGB"
    for index, colour in enumerate(COLOURS):
        left, top = 12 + index % 3 * 112, 12 + index // 3 * 184
        cell = np.asarray(sheet.crop((left, top, left + 100, top + 100)))
        assert (cell == colour).all()
        words = np.asarray(sheet.crop((left, top + 100, left + 100, top + 172)).convert("L"))
        assert words.min() < 100 and words.max() == 255


def test_transparency_is_white_and_a_bad_row_is_told():
    sheet = contact_sheet(Colours(), [4, 5], columns=2, side=100)
    glass = np.asarray(sheet.crop((124, 12, 224, 112)))
    assert (glass == 255).all()
    broken = np.asarray(sheet.crop((12, 112, 112, 184))).astype(int)
    assert ((broken[..., 0] - broken[..., 1]) > 80).any()  # in red


def test_small_pictures_are_enlarged_by_whole_factors():
    class Tiny(Colours):
        def image(self, index):
            return Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8))

    cell = np.asarray(contact_sheet(Tiny(), [0], side=101).crop((12, 12, 112, 112)).convert("L"))
    assert set(np.unique(cell)) == {0, 255} and (cell[:50, :50] == 0).all() and (cell[:50, 50:] == 255).all()


@pytest.mark.parametrize(
    "text", ["short", "several words that need more than one line", "w" * 500, "x" * 1_000_000, "漢字" * 40, ""]
)
def test_words_fit_their_cell(text):
    font = ImageFont.load_default(14)
    lines = _wrapped(text, font, 100)
    assert len(lines) <= 4 and all(font.getlength(line) <= 100 for line in lines)
    if len(text) < 50:
        assert " ".join(lines) == text
    if len(text) > 400:
        assert lines[-1].endswith("...")


def test_rows_are_spread():
    assert spread_rows(100, 4) == [0, 25, 50, 75] and spread_rows(3, 24) == [0, 1, 2] and spread_rows(0, 5) == []
    with pytest.raises(DataError, match="no rows to show"):
        contact_sheet(Colours(), [])
