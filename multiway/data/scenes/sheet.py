"""A contact sheet of scenes with all that is known of them, to look at before training on any of it.

One band for each scene: the picture with boxes, its masks, what a counterfactual changes, the pair of a statement, a strip
of video, and beside them the words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from multiway.data.scenes.annotate import Annotations, annotate
from multiway.data.scenes.draw import draw_scenes, masks
from multiway.data.scenes.graph import Scene
from multiway.data.scenes.source import Scenes

__all__ = ["annotated_sheet"]

_LARGE, _SMALL, _FRAME = 184, 88, 76  # sides of pictures, in pixels
_GAP, _LEADING, _FONT = 10, 17, 13
_FRAMES = 8
_PICTURES = _FRAMES * (_FRAME + 4) + _GAP  # width of the left half: the strip's
_WORDS = 560  # width of each column of words
_WIDTH = _GAP + _PICTURES + 2 * (_WORDS + _GAP)

# Of boxes and masks, by place of the thing; seen on every background and none of the things' own colours alone.
_MARKS = ((0, 170, 190), (230, 60, 160), (120, 120, 0), (90, 90, 230))
_HEAD, _INK, _SOFT = (20, 90, 160), (20, 20, 20), (110, 110, 110)

Colour = tuple[int, int, int]


def annotated_sheet(source: Scenes, rows: Sequence[int]) -> Image.Image:
    """Draw rows of a world with all annotations, RGB."""
    bands = [_band(annotate(source, row, asked=3, frames=_FRAMES)) for row in rows]
    sheet = Image.new("RGB", (_WIDTH, sum(band.height for band in bands)), "white")
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    return sheet


def _picture(scene: Scene, side: int) -> Image.Image:
    return Image.fromarray(draw_scenes([scene], side)[0])


def _band(known: Annotations) -> Image.Image:
    font = ImageFont.load_default(_FONT)
    columns = [list(_wrapped(lines, font)) for lines in (_told(known), _asked(known))]
    pictures = _pictures(known, font)
    height = max(pictures.height, _LEADING * max(map(len, columns))) + 2 * _GAP
    band = Image.new("RGB", (_WIDTH, height), "white")
    pen = ImageDraw.Draw(band)
    pen.line((0, height - 1, _WIDTH, height - 1), fill=(200, 200, 200))
    band.paste(pictures, (_GAP, _GAP))
    for number, lines in enumerate(columns):
        left = _GAP + _PICTURES + number * (_WORDS + _GAP)
        for place, (text, colour) in enumerate(lines):
            pen.text((left, _GAP + place * _LEADING), text, fill=colour, font=font)
    return band


def _pictures(known: Annotations, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """The left half: large pictures, small ones below, the video at the bottom."""
    below = _LARGE + _GAP + _LEADING
    canvas = Image.new("RGB", (_PICTURES, below + _SMALL + _LEADING + _GAP + _FRAME), "white")
    pen = ImageDraw.Draw(canvas)
    canvas.paste(_boxed(known), (0, 0))
    canvas.paste(_masked(known.scene), (_LARGE + _GAP, 0))
    pen.text((_LARGE + _GAP, _LARGE + 1), "masks", fill=_SOFT, font=font)
    pen.text((0, _LARGE + 1), "boxes of referring expressions", fill=_SOFT, font=font)
    small: list[tuple[str, Scene]] = [(each.kind, each.changed) for each in known.counterfactuals]
    if known.statements:
        one, other = known.statements[:2]
        small += [("next row", one.right)]
        small += [("other pair", other.left if other.left != one.left else other.right)]
    for place, (name, scene) in enumerate(small):
        left = place * (_SMALL + _GAP)
        canvas.paste(_picture(scene, _SMALL), (left, below))
        pen.text((left, below + _SMALL + 1), name, fill=_SOFT, font=font)
    strip = below + _SMALL + _LEADING + _GAP
    for place, shot in enumerate(known.video.frames):
        canvas.paste(_picture(shot, _FRAME), (place * (_FRAME + 4), strip))
    return canvas


def _boxed(known: Annotations) -> Image.Image:
    picture = _picture(known.scene, _LARGE)
    pen = ImageDraw.Draw(picture)
    for each in known.expressions:
        pen.rectangle([round(edge * _LARGE) for edge in each.box], outline=_MARKS[each.thing], width=2)
    return picture


def _masked(scene: Scene) -> Image.Image:
    """Every thing's mask in the colour of its box, on grey."""
    canvas = np.full((_LARGE, _LARGE, 3), 235.0)
    for mask, mark in zip(masks(scene, _LARGE), _MARKS, strict=False):
        canvas += mask[..., None] * (np.array(mark) - canvas)
    return Image.fromarray(canvas.round().astype(np.uint8))


Line = tuple[str, Colour]


def _told(known: Annotations) -> list[Line]:
    """Captions, expressions, counterfactuals, the video."""
    lines: list[Line] = [("captions", _HEAD), *((text, _INK) for text in known.captions)]
    lines += [("referring expressions", _HEAD), *((each.text, _MARKS[each.thing]) for each in known.expressions)]
    for each in known.counterfactuals:
        lines += [(f"counterfactual, {each.fact}", _HEAD), (f"here: {each.caption}", _INK)]
        lines += [(f"there: {each.changed_caption}", _INK)]
    lines += [("video", _HEAD), (known.video.caption or "(no thing can be named)", _INK)]
    return lines


def _asked(known: Annotations) -> list[Line]:
    """Questions, triples, statements, a choice with its reasons; what is right is marked."""
    lines: list[Line] = [("questions, ten answers", _HEAD)]
    for question in known.questions:
        given = ", ".join(f"{question.answers.count(answer)} x {answer}" for answer in dict.fromkeys(question.answers))
        lines.append((f"{question.text}  {given}", _INK))
    lines += [("entailment", _HEAD), *((f"{each.hypothesis}: {each.label}", _INK) for each in known.triples)]
    lines.append(("statements of two pictures: this and the next row, this and another pair", _HEAD))
    for one, other in zip(known.statements[::2], known.statements[1::2], strict=True):
        lines.append((f"{one.text}: {str(one.true).lower()}, {str(other.true).lower()}", _INK))
    for choice in known.choices[:2]:
        lines.append((f"choice: {choice.question}", _HEAD))
        for options, right in ((choice.answers, choice.answer), (choice.reasons, choice.reason)):
            marked = [f"[{text}]" if number == right else text for number, text in enumerate(options)]
            lines.append((" / ".join(marked), _INK))
    return lines


def _wrapped(lines: Sequence[Line], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[Line]:
    """Lines broken between words to the width of a column; what goes on is set in."""
    broken: list[Line] = []
    for text, colour in lines:
        line = ""
        for word in text.split(" "):
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > _WORDS - _GAP:
                broken.append((line, colour))
                longer = f"    {word}"
            line = longer
        broken.append((line, colour))
    return broken
