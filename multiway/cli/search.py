"""`multiway search runs/demo "red fruit"`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiway.cli.output import print_json
from multiway.config import ConfigError
from multiway.data.open import open_source, parse
from multiway.engine.run import Run
from multiway.hub.load import load
from multiway.serve.search import PictureIndex

__all__ = ["Search", "run"]


@dataclass(frozen=True)
class Search:
    """Find pictures by words.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder.
        query: the words.
        data: whose pictures; by default all those the run was trained on and tested with.
        images: folder that a caption file's paths are relative to.
        image_column, caption_column: of a caption file, where their names are unusual.
        top: how many to show.
        json: print one JSON object instead of a table.
    """

    model: Annotated[str, tyro.conf.Positional]
    query: Annotated[str, tyro.conf.Positional]
    data: str = ""
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    top: int = 10
    json: bool = False


def run(args: list[str]) -> int:
    """Search and print."""
    asked = tyro.cli(Search, args=args, prog="multiway search")
    if not asked.query.strip():
        raise ConfigError("the query is empty; say what to look for")
    if asked.top < 1:
        raise ConfigError(f"--top is {asked.top}; at least 1 picture has to be asked for")
    model = load(asked.model)
    folder = Path(asked.model)
    columns = (asked.image_column, asked.caption_column)
    data, images = asked.data, asked.images
    if not data:
        if not folder.is_dir():
            raise ConfigError("a weights file does not know its data; name the pictures to search with --data")
        config = Run.read(folder).config
        data, images = str(replace(parse(config["data"]), split="")), images or config["images"]
        columns = (config["image_column"], config["caption_column"])
    source = open_source(data, images, "all", *(column or None for column in columns))
    index = PictureIndex.build(model, source, folder / "cache" if folder.is_dir() else None)
    hits = index.search([asked.query], asked.top)[0]
    if asked.json:
        rows = [{"rank": h.rank, "score": h.score, "key": h.key, "caption": h.caption} for h in hits]
        print_json({"query": asked.query, "data": data, "pictures": len(index.rows), "hits": rows})
        return 0
    table = Table(
        "",
        "cosine",
        "picture",
        "caption",
        title=escape(f"{asked.query!r} among {len(index.rows):,} pictures of {data}"),
    )
    for hit in hits:
        table.add_row(str(hit.rank), f"{hit.score:.3f}", escape(hit.key), escape(hit.caption))
    Console().print(table)
    return 0
