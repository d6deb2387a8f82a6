"""Where VCR's people and things are, read from the file beside a still, and drawn into it.

A model that reads a picture end to end has no detector's boxes to tell it who `person 3` is. MERLOT (Zellers et al., 2021, arXiv
2106.02636; downstream/vcr of its code) and MERLOT Reserve (2022, arXiv 2201.02639; finetune/vcr of its code) therefore draw
them: for each object that the question or a choice names a box, tinted and outlined in a colour that belongs to its number. The
text keeps the number, and what links the two is learnt. Both draw what *any* choice names, so that the drawing does not tell
the right one; Reserve, as here, draws one picture for the answers and the reasons.
"""

from __future__ import annotations

import colorsys
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from multiway.data.annotated.boxes import box_of_corners
from multiway.data.annotated.files import FolderPictures
from multiway.data.annotated.records import Record, read_json
from multiway.data.examples import Box
from multiway.data.source import BadRow, DataError

__all__ = ["DrawnStills", "Region", "colour_of", "draw_regions", "read_regions"]

_TINT = 0.125  # of the colour within a box, as MERLOT Reserve's 32 of 255; MERLOT's is 0.15
_LINE = 1 / 150  # of the shorter side; MERLOT's 7 pixels of a still and Reserve's 2 of 450 are a little above and below
_GOLDEN = (math.sqrt(5) - 1) / 2
_LIGHTNESS = (0.5, 0.35, 0.68)

_Drawing = tuple[
    int, str, tuple[str, ...], tuple[int, ...]
]  # still, file of its boxes, names of its objects, those drawn


@dataclass(frozen=True)
class Region:
    """An object of a still.

    Attributes:
        name: as the words have it, `person 3`.
        box: where it is.
        polygons: its outline in parts, each a ring of points (x, y), as shares of the picture's width and height.
        score: of the detector that found it, in [0, 1].
    """

    name: str
    box: Box
    polygons: tuple[tuple[tuple[float, float], ...], ...]
    score: float


class DrawnStills:
    """Stills with the boxes of some of their objects drawn; satisfies `Pictures`.

    A still is there once for each set of objects that are drawn into it.

    Args:
        pictures: the stills as they are.
    """

    def __init__(self, pictures: FolderPictures) -> None:
        self.pictures = pictures
        self.files: list[str] = []
        """Name of the still, and the numbers of what is drawn."""
        self._drawn: list[_Drawing] = []
        self._number: dict[_Drawing, int] = {}

    def __len__(self) -> int:
        return len(self._drawn)

    def number(self, still: int, metadata: str, names: tuple[str, ...], shown: Collection[int]) -> int:
        """The number of a still with some objects drawn.

        Args:
            still: its number in the folder.
            metadata: file with its boxes, a path within the folder.
            names: of all its objects, `person 3`.
            shown: which of them are drawn, counted from 0.
        """
        wanted: _Drawing = still, metadata, names, tuple(sorted(shown))
        if wanted not in self._number:
            self._number[wanted] = len(self._drawn)
            self._drawn.append(wanted)
            self.files.append(f"{self.pictures.files[still]} {wanted[3]}")
        return self._number[wanted]

    def image(self, index: int) -> Image.Image:
        """The decoded still, drawn upon; one that nothing is drawn into is as it was.

        Raises:
            BadRow: if the still or the file of its boxes cannot be used.
        """
        still, metadata, names, shown = self._drawn[index]
        image = self.pictures.image(still)
        if not shown:
            return image
        regions = read_regions(self.pictures.root / metadata, names)
        return draw_regions(image, {number: regions[number].box for number in shown})


def draw_regions(image: Image.Image, boxes: dict[int, Box]) -> Image.Image:
    """A picture with boxes tinted and outlined, each in the colour of its number; pixels outside of all boxes stay as they are.

    Args:
        image: of any mode; the result is RGB.
        boxes: by number of the object. Larger ones are drawn first, so that a smaller one within is seen whole.
    """
    drawn = image.convert("RGB")
    line = max(1, round(min(image.size) * _LINE))
    for number, box in sorted(boxes.items(), key=lambda each: -_area(each[1])):
        left, top = math.floor(box[0] * image.width), math.floor(box[1] * image.height)
        right = max(left + 1, math.ceil(box[2] * image.width))
        bottom = max(top + 1, math.ceil(box[3] * image.height))
        within = (left, top, right, bottom)
        tint = Image.new("RGB", (right - left, bottom - top), colour_of(number))
        drawn.paste(Image.blend(drawn.crop(within), tint, _TINT), within)
        # The far corner is a pixel of Pillow's rectangle; the line grows inwards.
        ImageDraw.Draw(drawn).rectangle((left, top, right - 1, bottom - 1), outline=colour_of(number), width=line)
    return drawn


def colour_of(number: int) -> tuple[int, int, int]:
    """Red, green and blue in [0, 255] of an object by its number, counted from 0: that of `person 1` is `colour_of(0)`.

    Hues a golden section apart in three lightnesses: neighbours in number differ most, and none comes twice.
    """
    rgb = colorsys.hls_to_rgb(number * _GOLDEN % 1.0, _LIGHTNESS[number % len(_LIGHTNESS)], 1.0)
    red, green, blue = (round(255 * share) for share in rgb)
    return red, green, blue


def read_regions(path: Path, names: Sequence[str]) -> tuple[Region, ...]:
    """All objects of a still, in the order of their numbers.

    Args:
        path: the file beside it: {"boxes": [[left, top, right, bottom, score], ...], "segms": [[ring, ...], ...], "width",
            "height"}, in pixels.
        names: of the objects.

    Raises:
        BadRow: if the file is missing or broken, or has another number of objects.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - once for each picture of an epoch
        raise BadRow(f"there is no {path.name} in {path.parent}; it comes with the still, in vcr1images.zip")
    try:
        return _regions(Record(path.name, read_json(path, dict)), names)
    except DataError as error:
        raise BadRow(str(error)) from error


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _regions(record: Record, names: Sequence[str]) -> tuple[Region, ...]:
    width, height = record.number("width", 1), record.number("height", 1)
    boxes, outlines = record.list("boxes", 0), record.list("segms", 0)
    if not len(boxes) == len(outlines) == len(names):
        raise BadRow(
            f"{record.where} has {len(boxes)} boxes and {len(outlines)} outlines for {len(names)} objects; "
            "get both files of one release"
        )
    found = []
    for number, (box, outline) in enumerate(zip(boxes, outlines, strict=True)):
        what = f"box {number + 1} of {record.where}"
        if (
            not isinstance(box, list)
            or len(box) != 5
            or isinstance(box[4], bool)
            or not isinstance(box[4], (int, float))
        ):
            raise BadRow(f"{what} is {box!r:.60}; expected left, top, right, bottom and score")
        polygons = _polygons(outline, width, height, what)
        found.append(Region(names[number], box_of_corners(box[:4], width, height, what), polygons, float(box[4])))
    return tuple(found)


def _polygons(outline: Any, width: int, height: int, what: str) -> tuple[tuple[tuple[float, float], ...], ...]:
    try:
        return tuple(tuple((float(x) / width, float(y) / height) for x, y in ring) for ring in outline)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRow(f"the outline of {what} is {outline!r:.40}; expected polygons of points (x, y)") from error
