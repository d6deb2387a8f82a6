"""Boxes of annotation files, in pixels and by several conventions, as shares of the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from multiway.data.examples import Box
from multiway.data.source import BadRow

__all__ = ["box_of_corners", "box_of_size"]

# Pixels by which a box may lie outside its picture: annotation tools round, and round the other way than the picture was cut.
_SLACK = 2.0


def box_of_corners(values: Any, width: float, height: float, what: str = "the box") -> Box:
    """Left, top, right, bottom in pixels as shares.

    Args:
        values: four numbers, from a stranger's file.
        width, height: of the picture, in pixels.
        what: the box is called in messages.

    Raises:
        BadRow: if they are no numbers, enclose nothing, or lie outside the picture.
    """
    left, top, right, bottom = _numbers(values, what)
    if not (width > 0 and height > 0):
        raise BadRow(f"{what} belongs to a picture of {width:g} x {height:g} pixels; correct the picture's size")
    if right <= left or bottom <= top:
        raise BadRow(f"{what} {_said(values)} encloses nothing; correct it or remove the row")
    if left < -_SLACK or top < -_SLACK or right > width + _SLACK or bottom > height + _SLACK:
        raise BadRow(
            f"{what} {_said(values)} lies outside its picture of {width:g} x {height:g} pixels; correct the box"
        )
    box = (max(left, 0.0) / width, max(top, 0.0) / height, min(right, width) / width, min(bottom, height) / height)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise BadRow(
            f"{what} {_said(values)} lies outside its picture of {width:g} x {height:g} pixels; correct the box"
        )
    return box


def box_of_size(values: Any, width: float, height: float, what: str = "the box") -> Box:
    """Left, top, width, height in pixels, as COCO has them, as shares of the picture.

    Raises:
        BadRow: as `box_of_corners`.
    """
    left, top, wide, high = _numbers(values, what)
    return box_of_corners((left, top, left + wide, top + high), width, height, what)


def _numbers(values: Any, what: str) -> tuple[float, float, float, float]:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 4 or not all(map(_finite, values)):
        raise BadRow(f"{what} is {values!r:.60}; expected four numbers in pixels, correct the row")
    left, top, right, bottom = map(float, values)
    return left, top, right, bottom


def _finite(value: Any) -> bool:
    # Numbers of thousands of digits are JSON, but no pixels; `float` of them overflows.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e9 if isinstance(value, int) else math.isfinite(value)


def _said(values: Any) -> str:
    return "(" + ", ".join(f"{float(each):g}" for each in values) + ")"
