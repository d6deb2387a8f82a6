"""Hits as a page: one file without links to anywhere, the pictures inside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader
from PIL import Image

from multiway.data.source import BadRow
from multiway.data.thumbnail import picture_uri
from multiway.serve.find import PictureOf
from multiway.serve.index import Hit, IndexFault

__all__ = ["write_hits"]


def write_hits(
    path: Path,
    words: str,
    asked: Image.Image | None,
    hits: Sequence[Hit],
    picture_of: PictureOf,
    place: str,
    among: int,
    by: str,
) -> str:
    """Write the page.

    Args:
        path: of the page; written aside and renamed.
        words, asked: the query.
        hits: best first.
        picture_of: what a hit's picture is; one that cannot be had is shown as an empty frame.
        place, among: what was searched, and how many pictures that are.
        by: what the scores are.

    Returns:
        Why pictures are missing; empty if none is.
    """
    shown: list[tuple[Hit, str]] = []
    why = ""
    for hit in hits:
        try:
            shown.append((hit, picture_uri(picture_of(hit), 320)))
        except (BadRow, IndexFault) as error:
            shown.append((hit, ""))
            why = why or str(error)
    # Captions and file names come from strangers: everything is escaped.
    templates = Environment(loader=PackageLoader("multiway.serve"), autoescape=True, trim_blocks=True)
    page = templates.get_template("search.html.j2").render(
        title=words or "search",
        words=words,
        asked=picture_uri(asked, 320) if asked is not None else "",
        hits=shown,
        place=place,
        among=among,
        by=by,
    )
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(page, encoding="utf-8")
    aside.replace(path)
    return why
