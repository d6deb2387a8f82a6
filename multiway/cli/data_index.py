"""`multiway data index PATTERN`: find every sample of many shards once, before a cluster does."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from multiway.data.shards import read_shards

__all__ = ["Index", "run_index"]

_SHOWN = 10  # samples left out that are printed for people; --json has all


@dataclass(frozen=True)
class Index:
    """Index shards, several at a time. What has an index keeps it, so that this can be stopped and gone on with.

    Attributes:
        pattern: shards: a folder, a name with `{000..999}` or `*`, or a URL of these kinds.
        workers: shards at a time; 0 is one for every CPU core, and 16 by URL.
        json: print one JSON object instead of text.
    """

    pattern: Annotated[str, tyro.conf.Positional]
    workers: int = 0
    json: bool = False


def run_index(asked: Index) -> int:
    """Index, and say what there is.

    Raises:
        DataError: if a shard cannot be used.
    """
    began = time.perf_counter()
    remote = "://" in asked.pattern
    columns = (TextColumn("indexing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=asked.json) as bar:
        task = bar.add_task("indexing", total=None)
        splits = read_shards(
            asked.pattern,
            workers=asked.workers or (16 if remote else os.cpu_count() or 1),
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )
    source = next(iter(splits.values()))
    seconds = time.perf_counter() - began
    rows = {name: len(split) for name, split in splits.items()}
    folder = source.catalogue.folder
    if asked.json:
        json.dump(
            {
                "task": "data index",
                "data": asked.pattern,
                "shards": len(source.tars),
                "rows": rows,
                "skipped": [asdict(each) for each in source.rejected],
                "catalogue": str(folder) if folder is not None else None,
                "seconds": seconds,
            },
            sys.stdout,
            ensure_ascii=False,
        )
        sys.stdout.write("\n")
        return 0
    console = Console(soft_wrap=True, markup=False, highlight=False)
    named = ", ".join(f"{name} {count:,}" for name, count in rows.items())
    console.print(f"{len(source.tars):,} shards, {sum(rows.values()):,} rows ({named}), in {seconds:.1f} s")
    if folder is not None:
        size = sum(each.stat().st_size for each in folder.iterdir())
        console.print(f"opened from {folder} from now on ({size / 1e6:,.1f} MB)")
    for each in source.rejected[:_SHOWN]:
        console.print(f"  left out: {each}", style="yellow")
    if len(source.rejected) > _SHOWN:
        console.print(f"  ... and {len(source.rejected) - _SHOWN:,} more", style="yellow")
    return 0
