"""Pictures inside a page: data URIs, so that the page is one file without links to anywhere."""

from __future__ import annotations

import base64
import io

from PIL import Image

from multiway.data.view import on_background

__all__ = ["picture_uri"]


def picture_uri(image: Image.Image, side: int = 72) -> str:
    """A picture on white as a data URI, at most `side` pixels large."""
    image = on_background(image, 255)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
