"""What `multiway embed`, `caption` and `filter` are told alike, and how they begin."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from multiway.cli.output import print_json
from multiway.data.open import ALL, BUNDLED, PUBLISHED, open_source, parse
from multiway.data.remote import RemoteFile, is_remote
from multiway.data.source import Source
from multiway.engine.device import choose_device
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.workflows.bulk import Asked, Totals
from multiway.world import World

__all__ = ["BulkOptions", "begin", "finish", "from_anywhere", "say"]


@dataclass(frozen=True)
class BulkOptions:
    """How the work is done.

    Attributes:
        images: folder that a caption file's paths are relative to.
        image_column: of a caption file, where its name is unusual.
        caption_column: of a caption file, where its name is unusual.
        rows_per_part: of data that are no shards; of shards a part is a shard.
        batch: pictures in one pass of the model.
        workers: processes that decode pictures ahead of the model.
        skip_ceiling: share of pictures that may be unreadable.
        device: `cpu`, `cuda`, or `auto`.
        precision: of the arithmetic; `bf16` is quicker where the machine has it.
        threads: CPU threads; 0 leaves torch's choice.
        json: print one JSON object instead of a sentence.
    """

    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    rows_per_part: int = 10_000
    batch: int = 256
    workers: int = 0
    skip_ceiling: float = 0.1
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 0
    json: bool = False


def begin(
    run: str, data: str, out: str, how: BulkOptions, world: World, *, bare: bool = False
) -> tuple[Model, Source, Asked]:
    """Model, data and how they are worked through, by what the command line says; all rows unless `@split` is named.

    Args:
        bare: whether pictures without captions will do.
    """
    where = {
        "run": str(Path(run).resolve()) if Path(run).exists() else run,
        "data": from_anywhere(data),
        "images": str(Path(how.images).absolute()) if how.images else "",
        "image_column": how.image_column,
        "caption_column": how.caption_column,
    }
    asked = Asked(Path(out), where, how.rows_per_part, how.batch, how.workers, how.skip_ceiling)
    if how.threads:
        torch.set_num_threads(how.threads)
    source = open_source(data, how.images, ALL, how.image_column or None, how.caption_column or None, bare=bare)
    model = load(run, str(choose_device(how.device, world.rank)), how.precision)
    return model, source, asked


def from_anywhere(data: str) -> str:
    """The data as they are named from any folder: results are opened later, from elsewhere."""
    spec = parse(data)
    if spec.name in BUNDLED:
        return data
    if is_remote(spec.name):  # without signature or password, which are nothing to write down
        return str(replace(spec, name=str(RemoteFile(spec.name))))
    if spec.name in PUBLISHED:
        return str(replace(spec, path=str(Path(spec.path).expanduser().absolute())))
    return str(replace(spec, name=str(Path(spec.name).expanduser().absolute())))


def say(text: str) -> None:
    """Progress, on the error stream."""
    print(text, file=sys.stderr, flush=True)


def finish(out: str, found: Totals, told: str, how: BulkOptions, **more: Any) -> None:
    """What came of it: a sentence, or one JSON object with `more` in it."""
    if how.json:
        totals = {"parts": found.parts, "rows": found.rows, "skipped": found.skipped, **found.counts}
        print_json({"out": out, **totals, **more})
        return
    skipped = f"; {found.skipped:,} pictures could not be read: {out}/skipped.jsonl" if found.skipped else ""
    print(f"{out}: {told}, in {found.parts:,} part{'s' if found.parts > 1 else ''}{skipped}")
