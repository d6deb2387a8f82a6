"""What names data on a command line: `name[:path][@split]`, and several of them mixed, `emoji*1 + scenes:easy@train*3`."""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd, lcm
from pathlib import Path

from multiway.data.annotated.binary_pictures import PICTURE_SETS
from multiway.data.annotated.caption_sets import CAPTION_SETS
from multiway.data.source import DataError, SourceSpec
from multiway.data.table import TABLE_SUFFIXES

__all__ = ["ALL", "BUNDLED", "PUBLISHED", "expected", "is_mixed", "parse", "parse_mixture", "parts_of"]

ALL = "all"
"""The name under which every row of a data set is opened, whatever its split."""

BUNDLED: dict[str, str] = {
    "emoji": "3,600 emoji pictures with their names",
    "digits": "1,797 handwritten digits of 8 x 8 pixels",
    "scenes": "drawn shapes with captions, endless; scenes:easy, scenes:hard and further options",
    "scenes-video": "the same shapes in motion, to be measured on; options as of scenes",
}
"""Data that come with multiway, and a line on each."""


PUBLISHED = (*CAPTION_SETS, *PICTURE_SETS)
"""Names of the sets that are read from their original files, as NAME:FOLDER."""

_WEIGHT = re.compile(r"\*(\d+(?:\.\d*)?|\.\d+)$")
_PLUS = re.compile(r"\s+\+\s+")
_CYCLE = 10**9  # positions after which a mixture has each weight exactly


def parse(spec: str) -> SourceSpec:
    """Take the specification of one source apart.

    The last `@` begins the split unless a `/` follows it; `:` parts name and path only after the name of a bundled set
    or of a published one, so that file names may hold both; `*` begins a weight only before a number at the very end, so that wild
    cards work.

    Raises:
        DataError: if it is empty, names several sources, or has a weight.
    """
    text = spec.strip()
    if is_mixed(spec):
        pieces = [_WEIGHT.sub("", piece) for piece in _PLUS.split(text)]
        raise DataError(
            f"{spec!r} mixes {len(pieces)} sources, which is for training alone; name one of them here: {' or '.join(pieces)}"
        )
    weight = _WEIGHT.search(text)
    if weight and not Path(text).exists():
        raise DataError(
            f"{spec!r} gives the weight {weight[1]} to one source; weights are of several, as in 'emoji*1 + scenes:easy*3': leave out "
            f"`*{weight[1]}` or name another source"
        )
    name, at, split = text.rpartition("@")
    if not at or "/" in split or not name or Path(text).exists():
        name, at, split = text, "", ""
    if at and not split:
        raise DataError(f"{spec!r} ends in `@` without a split; write for example {name}@train, or leave out the `@`")
    first, colon, path = name.partition(":")
    if not (colon and (first in BUNDLED or first in PUBLISHED)):
        first, path = name, ""
    if not first:
        said = f"{spec!r} names no data" if spec else "no data are named; give them with --data"
        raise DataError(f"{said}; {expected()}")
    return SourceSpec(first, path, split)


def is_mixed(spec: str) -> bool:
    """Whether a specification names several sources, parted by a plus sign between spaces; a file that is called so is one."""
    return bool(_PLUS.search(spec.strip())) and not Path(spec.strip()).exists()


def parts_of(spec: str) -> list[SourceSpec]:
    """The sources that a specification names, one or several.

    Raises:
        DataError: as `parse` and `parse_mixture` do.
    """
    return [part for part, _ in parse_mixture(spec)] if is_mixed(spec) else [parse(spec)]


def parse_mixture(spec: str) -> list[tuple[SourceSpec, int]]:
    """Take the specification of several sources apart.

    Returns:
        Each with its weight: whole numbers without a common factor, in the given proportions; a source without a weight has 1.

    Raises:
        DataError: for a source named twice, a weight of nothing, or weights whose proportions are too fine.
    """
    found: dict[SourceSpec, Fraction] = {}
    for piece in _PLUS.split(spec.strip()):
        given = _WEIGHT.search(piece)
        part = parse(piece[: given.start()] if given else piece)
        if part in found:
            raise DataError(f"{spec!r} names {part} twice; name it once, with the weight of both")
        found[part] = Fraction(given[1]) if given else Fraction(1)
        if not found[part]:
            raise DataError(f"{spec!r} gives {part} the weight 0, with which nothing is drawn of it; leave it out")
    common = lcm(*(weight.denominator for weight in found.values()))
    weights = [int(weight * common) for weight in found.values()]
    weights = [weight // gcd(*weights) for weight in weights]
    if sum(weights) > _CYCLE:
        raise DataError(f"{spec!r}: the weights come out even only every {sum(weights):,} rows; round them")
    return list(zip(found, weights, strict=True))


def expected() -> str:
    """What data may be, for messages."""
    return (
        f"expected a bundled set ({', '.join(BUNDLED)}), a caption file ({', '.join(TABLE_SUFFIXES)}), a folder of pictures, "
        f"WebDataset shards (.tar, with {{000..099}} or *, also by URL), or the files of a published set ({', '.join(PUBLISHED)}) as "
        "NAME:FOLDER"
    )
