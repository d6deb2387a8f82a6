"""`multiway search runs/demo "red fruit"`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from multiway.cli.output import print_json
from multiway.config import ConfigError
from multiway.data.open import open_source
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
        top: how many to show.
        json: print one JSON object instead of a table.
    """

    model: Annotated[str, tyro.conf.Positional]
    query: Annotated[str, tyro.conf.Positional]
    data: str = ""
    images: str = ""
    top: int = 10
    json: bool = False


def run(args: list[str]) -> int:
    """Search and print."""
    asked = tyro.cli(Search, args=args, prog="multiway search")
    if not asked.query.strip():
        raise ConfigError("the query is empty; say what to look for")
    model = load(asked.model)
    folder = Path(asked.model)
    data, images = asked.data, asked.images
    if not data:
        if not folder.is_dir():
            raise ConfigError("a weights file does not know its data; name the pictures to search with --data")
        config = Run.read(folder).config
        data, images = config["data"].partition("@")[0], config["images"]
    source = open_source(data, images=images, default_split="all")
    index = PictureIndex.build(model, source, folder / "cache" if folder.is_dir() else None)
    hits = index.search([asked.query], asked.top)[0]
    if asked.json:
        rows = [{"rank": h.rank, "score": h.score, "key": h.key, "caption": h.caption} for h in hits]
        print_json({"query": asked.query, "data": data, "pictures": len(index.rows), "hits": rows})
        return 0
    table = Table(
        "", "cosine", "picture", "caption", title=f"{asked.query!r} among {len(index.rows):,} pictures of {data}"
    )
    for hit in hits:
        table.add_row(str(hit.rank), f"{hit.score:.3f}", hit.key, hit.caption)
    Console().print(table)
    return 0
