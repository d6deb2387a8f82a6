"""Strangers' picture files to Pillow pictures, strictly: a file is read whole and correctly, or refused with its cause.

The number of pixels is taken from the header and checked before anything is decompressed, only common raster formats
are tried (Pillow would hand an EPS file to Ghostscript), and none of Pillow's global switches is touched.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from multiway.data.source import BadRow

__all__ = ["PIXEL_CEILING", "decode", "picture_suffix"]

PIXEL_CEILING = 64_000_000
"""Pixels above which a picture is refused: 8000 x 8000, about 250 MB once decoded with transparency."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

# What Pillow's decoders raise on damaged files; OSError covers truncation.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)

# How files begin that end up in picture folders by mistake, and what to do about each.
_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "it is a Git LFS pointer, not the picture; run `git lfs pull`"),
    (b"%PDF", "it is a PDF; render its pages to PNG first"),
    (b"%!PS", "it is PostScript; render it to PNG first"),
    (b"<svg", "it is an SVG drawing; render it to PNG first"),
    (b"<", "it begins like an HTML or XML page, as failed downloads do; download it again"),
    (b"{", "it begins like JSON, as failed downloads do; download it again"),
)


def decode(
    picture: bytes | str | os.PathLike[str], where: str, ceiling: int = PIXEL_CEILING, least: int = 0
) -> Image.Image:
    """Decode one picture.

    An animation gives its first frame; EXIF orientation is applied; palettes, CMYK and other colour spaces become RGB;
    one and 16 bit greys become 8 bit; transparency is kept, also where the file states it as one transparent colour.

    Args:
        picture: encoded bytes, or the path of a file.
        where: file and row for messages: `pairs.jsonl, line 1204`.
        ceiling: greatest number of pixels.
        least: if above 0, a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as both sides keep so many
            pixels: its blocks are turned into fewer pixels each, which saves most of the time. For training only.

    Returns:
        A loaded picture of mode L, LA, RGB or RGBA.

    Raises:
        BadRow: naming the row, the file, the cause and the remedy.
    """
    if isinstance(picture, bytes):
        return _decode(io.BytesIO(picture), where, ceiling, least)
    path = Path(picture)
    where = f"{where}: {path.name}" if where else str(path)
    try:
        with path.open("rb") as file:
            return _decode(file, where, ceiling, least)
    except BadRow:
        raise
    except FileNotFoundError as error:
        raise BadRow(f"{where}: there is no such file ({path}); correct the path or the images folder") from error
    except OSError as error:
        raise BadRow(f"{where}: the file cannot be read ({error.strerror or error}); check {path}") from error


def _decode(file: BinaryIO, where: str, ceiling: int, least: int) -> Image.Image:
    image = _opened(file, where)
    width, height = image.size
    if width < 1 or height < 1:
        raise BadRow(f"{where}: the picture is {width}x{height} pixels; at least 1x1 is needed, remove the row")
    if width * height > ceiling:
        raise BadRow(
            f"{where}: the picture is {width}x{height}, {width * height / 1e6:.0f} million pixels, more than the "
            f"{ceiling / 1e6:.0f} million that are decoded; scale it down first"
        )
    try:
        if least > 0:
            image.draft(None, (least, least))  # other formats than JPEG pass it over
        image.load()
    except (*_DAMAGE, Image.DecompressionBombError, MemoryError) as error:
        raise BadRow(
            f"{where}: the picture is truncated or damaged ({error}); fetch it again or remove the row"
        ) from error
    return _plain_mode(_upright(image), where)


def _opened(file: BinaryIO, where: str) -> Image.Image:
    """The picture with its header read, its pixels not yet."""
    try:
        return Image.open(file, formats=_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRow(f"{where}: the picture is too large ({error}); scale it down first") from error
    except UnidentifiedImageError as error:
        file.seek(0)
        raise BadRow(f"{where}: this is not a picture: {_stranger(file.read(64))}") from error
    except _DAMAGE as error:
        raise BadRow(f"{where}: the picture's header is damaged ({error}); fetch it again or remove the row") from error


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The allowed formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _stranger(head: bytes) -> str:
    if not head:
        return "the file is empty (0 bytes); fetch it again or remove the row"
    for begin, advice in _STRANGERS:
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(begin):
            return advice
    if picture_suffix(head):
        return f"it begins like .{picture_suffix(head)} and then breaks off or is damaged; fetch it again or remove the row"
    return f"it begins with the bytes {head[:8].hex(' ')}; expected one of {', '.join(_formats())}"


def picture_suffix(data: bytes) -> str:
    """`jpg`, `png` or `webp` by the first bytes; empty for anything else. These three go into shards unchanged."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says. Unreadable EXIF is no reason to lose the picture: it is then shown as stored."""
    with contextlib.suppress(*_DAMAGE):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _plain_mode(image: Image.Image, where: str) -> Image.Image:
    mode = image.mode
    if mode in ("L", "RGB") and "transparency" in image.info:
        # A single transparent colour is lost on the first conversion unless it becomes an alpha channel now.
        return image.convert("LA" if mode == "L" else "RGBA")
    if mode in ("L", "LA", "RGB", "RGBA"):
        # A copy that forgets the file, so that a loaded picture holds nothing open.
        return image.copy()
    if mode == "1":
        return image.convert("L")
    if mode in ("PA", "La", "RGBa") or (mode == "P" and "transparency" in image.info):
        return image.convert("RGBA")
    if mode.startswith("I"):
        return _eight_bits(image, where)
    if mode == "F":
        raise BadRow(
            f"{where}: the picture has 32-bit float pixels, whose range is anyone's guess; save it with 8 bits"
        )
    return image.convert("RGB")


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
    """16-bit greys to 8 bits by their upper byte, as viewers show them; Pillow's own conversion clips at 255."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise BadRow(
            f"{where}: the picture has grey values from {low} to {high}; expected 0 to 65535, save it with 8 bits"
        )
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
