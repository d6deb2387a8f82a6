"""`multiway search runs/demo "red fruit"`, `multiway search INDEX "red fruit" --image apple.png`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiway.cli.output import print_json
from multiway.config import ConfigError
from multiway.data.decode import decode
from multiway.data.open import ALL, open_source, parse
from multiway.data.source import Source
from multiway.data.spec import BUNDLED
from multiway.data.subset import Subset
from multiway.engine.run import Run
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.serve.find import Finder, rerank
from multiway.serve.index import Hit, IndexFault, is_index, open_index
from multiway.serve.page import write_hits
from multiway.serve.search import PictureIndex

__all__ = ["Search", "gallery", "run"]

_DRAWN = 5_000
"""Pictures of a generated world that are encoded for a search, at most, unless somebody says how many."""


@dataclass(frozen=True)
class Search:
    """Find pictures by words, by a picture, or by both.

    Attributes:
        place: run folder, weights file, or `hf:` name or folder, whose model encodes the pictures of a source; or an index that
            `multiway index` built: its folder, `qdrant:URL/COLLECTION` or `qdrant:PATH`.
        query: the words; may be left out where there is a picture.
        image: picture to look for, beside or in place of words.
        weight: of the words where there is a picture too.
        top: how many to show.
        rerank: read the best and the words together, and rank them by that, with a model that is able to.
        rerank_top: how many are read.
        html: file to write a page with the pictures to.
        model: of an index: that encodes the query; by default the one that the index names.
        data: of a model: whose pictures; by default all those the run was trained on and tested with.
        pictures: of the data, so many, evenly spread; 0 for all. By default all; of a generated world (scenes), which has millions, the
            held-out ones, and 5,000 at most.
        images: folder that a caption file's paths are relative to.
        image_column: of a caption file, where its name is unusual.
        caption_column: of a caption file, where its name is unusual.
        json: print one JSON object instead of a table.
    """

    place: Annotated[str, tyro.conf.Positional]
    query: Annotated[str, tyro.conf.Positional] = ""
    image: str = ""
    weight: float = 0.5
    top: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    rerank: bool = False
    rerank_top: int = 50
    html: str = ""
    model: str = ""
    data: str = ""
    pictures: int | None = None
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    json: bool = False


def run(args: list[str]) -> int:
    """Search and print."""
    asked = tyro.cli(Search, args=args, prog="multiway search")
    if not asked.query.strip() and not asked.image:
        raise ConfigError("the query is empty; say what to look for, or show it: --image PICTURE")
    if min(asked.top, asked.rerank_top) < 1:
        raise ConfigError(
            f"--top is {asked.top}, --rerank-top {asked.rerank_top}; at least 1 picture has to be asked for"
        )
    if asked.pictures is not None and asked.pictures < 0:
        raise ConfigError(f"--pictures is {asked.pictures}; expected how many are searched, or 0 for all")
    picture = decode(Path(asked.image), asked.image) if asked.image else None
    finder, among, name = _index(asked) if is_index(asked.place) else _gallery(asked)
    hits = finder.find(
        asked.query, picture, asked.weight, max(asked.top, asked.rerank_top) if asked.rerank else asked.top
    )
    if asked.rerank:
        hits = rerank(finder.model, asked.query, hits[: asked.rerank_top], finder.picture)[: asked.top]
    _show(asked, picture, hits, finder, among, name)
    return 0


def _index(asked: Search) -> tuple[Finder, int, str]:
    """An index with its model."""
    if asked.data or asked.images or asked.pictures is not None:
        raise ConfigError(
            f"{asked.place} is an index, which knows its pictures; leave --data, --pictures and --images out"
        )
    index = open_index(asked.place)
    source = asked.model or index.about.get("run", "")
    if not source:
        raise ConfigError(f"{asked.place} does not say which model it was made by; name it with --model")
    if not asked.model and not source.startswith("hf:") and not Path(source).exists():
        raise IndexFault(
            f"{asked.place} was made by {source}, which is not there any more; name the model with --model"
        )
    return Finder(index, load(source)), len(index), asked.place


def _gallery(asked: Search) -> tuple[PictureIndex, int, str]:
    """A model with the pictures of a source, encoded here and now or kept from before."""
    if asked.model:
        raise ConfigError(f"{asked.place} is a model itself; --model is for an index")
    columns = (asked.image_column, asked.caption_column)
    index, name = gallery(
        asked.place,
        load(asked.place),
        asked.data,
        asked.images,
        columns,
        pictures=asked.pictures,
        more="--pictures N searches N of all of them, evenly spread, and --pictures 0 all",
    )
    return index, len(index.rows), name


def gallery(
    place: str,
    model: Model,
    data: str = "",
    images: str = "",
    columns: tuple[str, str] = ("", ""),
    *,
    pictures: int | None = None,
    more: str = "`multiway index` makes an index of more",
) -> tuple[PictureIndex, str]:
    """The pictures of a source, encoded; and the name of the data.

    A generated world has millions of pictures: unless somebody says how many, its held-out ones are taken, or some of them, and a
    sentence on the error stream says so.

    Args:
        place: run folder, beside which the embeddings are kept, or what else the model was loaded from.
        model: that encodes.
        data: whose pictures; by default all of the run's own.
        images, columns: of a caption file: its folder of pictures, and its columns of pictures and captions.
        pictures: so many, evenly spread; 0 for all, None for all but of a generated world.
        more: how more of a generated world are searched, for that sentence.

    Raises:
        ConfigError: without data, where there is no run to tell.
        LacksAbility, DataError: as of `PictureIndex.build`.
    """
    folder = Path(place)
    if not data:
        if not folder.is_dir():
            raise ConfigError("a weights file does not know its data; name the pictures to search with --data")
        config = Run.read(folder).config
        data, images = str(replace(parse(config["data"]), split="")), images or config["images"]
        columns = (config["image_column"], config["caption_column"])
    source = open_source(data, images, ALL, *(column or None for column in columns), bare=True)
    if pictures is not None:
        source = Subset(source, pictures) if 0 < pictures < len(source) else source
    elif len(source) > _DRAWN and parse(data).name in BUNDLED:
        source = _held_out(source, data, more)
    return PictureIndex.build(model, source, folder / "cache" if folder.is_dir() else None), data


def _held_out(source: Source, data: str, more: str) -> Source:
    """So much of a generated world as can be waited for."""
    world, parsed = len(source), parse(data)
    if not parsed.split:
        source = open_source(str(replace(parsed, split="val")))
    some = source if len(source) <= _DRAWN else Subset(source, _DRAWN)
    print(
        f"{data} is drawn and has {world:,} pictures: {len(some):,} of {source.name}@{source.split} are searched; {more}",
        file=sys.stderr,
    )
    return some


def _show(
    asked: Search, picture: Image.Image | None, hits: list[Hit], finder: Finder | PictureIndex, among: int, name: str
) -> None:
    by = "match" if asked.rerank else "cosine"
    if asked.html:
        why = write_hits(Path(asked.html), asked.query, picture, hits, finder.picture, name, among, by)
        told = f"{asked.html}: {len(hits)} pictures" + (f", some without: {why}" if why else "")
        print(told, file=sys.stderr)
    if asked.json:
        rows = [{"rank": h.rank, "score": h.score, "key": h.key, "caption": h.caption, "where": h.where} for h in hits]
        query = {"query": asked.query, **({"image": asked.image} if asked.image else {})}
        print_json({**query, "data": name, "pictures": among, "by": by, "hits": rows})
        return
    words = " and ".join(
        [*([repr(asked.query)] if asked.query.strip() else []), *([asked.image] if asked.image else [])]
    )
    table = Table("", by, "picture", "caption", title=escape(f"{words} among {among:,} pictures of {name}"))
    for hit in hits:
        table.add_row(str(hit.rank), f"{hit.score:.3f}", escape(hit.key), escape(hit.caption))
    Console().print(table)
