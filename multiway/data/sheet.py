"""A contact sheet: pictures of some rows in a grid, with their captions below, to look at before training."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from multiway.data.source import BadRow, DataError, Row, Source
from multiway.data.view import on_background

__all__ = ["contact_sheet", "spread_rows"]

_GAP = 12  # pixels around each cell
_FONT = 14
_LINES = 4  # of text below each picture
_LEADING = 18


def spread_rows(rows: int, count: int) -> list[int]:
    """`count` row numbers spread evenly over a source, so that sorted data show more than their beginning."""
    count = min(rows, count)
    return [index * rows // count for index in range(count)]


def contact_sheet(source: Source, rows: Sequence[int], columns: int = 6, side: int = 160) -> Image.Image:
    """Draw rows of a source.

    Args:
        source: transparent pictures are shown on white; pictures smaller than a cell are enlarged by whole factors.
        rows: their numbers. A row that cannot be read is drawn as its error message.
        columns: cells side by side.
        side: of a cell's picture, in pixels.

    Returns:
        RGB.

    Raises:
        DataError: if there are no rows to show.
    """
    if not rows:
        raise DataError(f"{source.name}@{source.split} has no rows to show; choose another split or more rows")
    columns = max(1, min(columns, len(rows)))
    font = ImageFont.load_default(_FONT)
    step_x, step_y = side + _GAP, side + _GAP + _LINES * _LEADING
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * step_x + _GAP, lines * step_y + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for place, index in enumerate(rows):
        left, top = _GAP + place % columns * step_x, _GAP + place // columns * step_y
        row = source.row(index)
        try:
            picture = _fitted(source.image(index), side)
            sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
            colour, text = "black", _words(row)
        except BadRow as error:
            pen.rectangle((left, top, left + side - 1, top + side - 1), outline="firebrick", width=2)
            colour, text = "firebrick", str(error)
        for number, line in enumerate(_wrapped(text, font, side)):
            pen.text((left, top + side + 4 + number * _LEADING), line, fill=colour, font=font)
    return sheet


def _words(row: Row) -> str:
    more = f" (+{len(row.captions) - 1})" if len(row.captions) > 1 else ""
    return " ".join(row.captions[0].split()) + more


def _fitted(image: Image.Image, side: int) -> Image.Image:
    image = on_background(image, 255)
    longest = max(image.size)
    if longest * 2 <= side:
        # Whole factors show the very pixels of small pictures.
        factor = side // longest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    scale = min(1.0, side / longest)
    return image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines that fit the width, the last one ending in an ellipsis if text is left over. Long words are cut."""
    lines: list[str] = []
    # No more can be shown; measuring a caption of a megabyte would take minutes.
    rest = text[: width * _LINES]
    while rest and len(lines) < _LINES:
        fits = _fitting(rest, font, width)
        if fits < len(rest) and " " in rest[1 : fits + 1]:
            fits = rest.rindex(" ", 1, fits + 1)
        lines.append(rest[:fits].rstrip())
        rest = rest[fits:].lstrip()
    if rest and lines:
        last = lines[-1]
        while last and font.getlength(last + "...") > width:
            last = last[:-1]
        lines[-1] = last.rstrip() + "..."
    return lines


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> int:
    """Characters from the beginning of `text` that fit, at least one."""
    count = 1
    while count < len(text) and font.getlength(text[: count + 1]) <= width:
        count += 1
    return count
