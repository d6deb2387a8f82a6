"""`multiway embed RUN --data SOURCE --out FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from multiway.abilities import abilities_of
from multiway.cli.bulk_options import BulkOptions, begin, finish, say
from multiway.workflows.bulk_embed import Embed, embed
from multiway.world import World

__all__ = ["Command", "run"]


@dataclass(frozen=True)
class Command:
    """Embed the pictures and texts of a source; the same command goes on after a stop, on any number of ranks.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder.
        data: `name[:path][@split]`, a caption file, a folder or a pattern of shards; all rows unless a split is named.
        out: folder of arrays and tables; `multiway index` takes it.
        what: which side; by default both where the model reads texts. With both, the cosine of every pair is kept as well.
        format: vectors as .npy files beside Parquet tables, or as a column in them.
        dtype: of the vectors on disk.
        work: how the work is done.
    """

    model: Annotated[str, tyro.conf.Positional]
    data: str
    out: str
    what: Literal["images", "texts", "both"] | None = None
    format: Literal["npy", "parquet"] = "npy"
    dtype: Literal["fp16", "fp32"] = "fp16"
    work: tyro.conf.OmitArgPrefixes[BulkOptions] = BulkOptions()


def run(args: list[str]) -> int:
    """Embed, and say how much."""
    asked = tyro.cli(Command, args=args, prog="multiway embed")
    with World.joined() as world:
        model, source, work = begin(asked.model, asked.data, asked.out, asked.work, world, bare=True)
        what = asked.what or ("both" if "encode_text" in abilities_of(model) else "images")
        found = embed(model, source, Embed(what, asked.format, asked.dtype), work, world, say)
        if world.is_main:
            told = " and ".join(f"{count:,} {name}" for name, count in found.counts.items())
            finish(asked.out, found, f"{told} embedded", asked.work)
    return 0
