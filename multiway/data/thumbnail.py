"""Pictures inside a page: data URIs, so that the page is one file without links to anywhere."""

from __future__ import annotations

import base64
import io

from PIL import Image

from multiway.data.view import on_background

__all__ = ["picture_uri"]


def picture_uri(image: Image.Image, side: int = 72, optimize: bool = True) -> str:
    """A picture on white as a data URI, at most `side` pixels large; several times as quick, and a little longer, if not optimised."""
    image = on_background(image, 255)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=optimize)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
