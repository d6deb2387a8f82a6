"""A map with pictures on hover: bounded, escaped, and without a script or a link."""

import re

from PIL import Image
from toy import toy_picture

from multiway.workflows.hover_map import MOST, Dot, hover_map


def test_dots_lie_where_they_are_told_and_carry_pictures() -> None:
    dots = [
        Dot((0.0, 0.0), "red", "<script>alert(1)</script>", toy_picture("red", "left")),
        Dot((4.0, 2.0), "blue", "at the top right", toy_picture("blue", "top")),
        Dot((2.0, 1.0), "", "words alone"),
        Dot((1.0, 1.0), "", "mine", Image.new("L", (300, 200), 9), True),
    ]
    page = hover_map(dots, "a map")
    places = re.findall(r'style="left:([\d.]+)%;top:([\d.]+)%', page)
    assert places[:3] == [("2.00", "98.00"), ("98.00", "2.00"), ("50.00", "50.00")]
    assert "<script" not in page and "&lt;script&gt;" in page
    assert re.findall(r"(?:src|href)=\"(?!data:image/jpeg;base64,)", page) == []
    assert page.count("<img") == 3 and "texts are hollow" in page and "red (1)" in page
    assert page.index("words alone") < page.index("mine")  # what was asked about is drawn last


def test_there_are_only_so_many_pictures() -> None:
    small = toy_picture("red", "left")
    dots = [Dot((float(n), float(n % 7)), f"class {n % 30}", str(n), small, n == 3) for n in range(MOST + 60)]
    page = hover_map(dots)
    assert page.count('class="d"') == MOST + 60 and page.count("<img") == MOST
    assert len(page) < 1_500_000 and "others (" in page


def test_one_place() -> None:
    assert "left:2.00%" in hover_map([Dot((1.0, 1.0), "", "alone")])
