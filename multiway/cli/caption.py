"""`multiway caption RUN --data SOURCE --out FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, cast

import tyro

from multiway.cli.bulk_options import BulkOptions, begin, finish, say
from multiway.cli.task_options import WritingOptions, with_options
from multiway.config import ConfigError
from multiway.tasks import TASKS
from multiway.tasks.written import Captions
from multiway.workflows.bulk_caption import Caption, caption
from multiway.world import World

__all__ = ["Command", "run"]


@dataclass(frozen=True)
class Command:
    """Write captions for the pictures of a source; the same command goes on after a stop, on any number of ranks.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder.
        data: `name[:path][@split]`, a caption file, a folder or a pattern of shards; all rows unless a split is named.
        out: folder of tables and shards.
        samples: captions for each picture; with beam search the best, with nucleus so many draws.
        temperature: of `nucleus`.
        seed: of `nucleus`.
        shards: write the pictures with their captions as shards too.
        writing: how texts are written; by default as task `captions` does, by three beams.
        work: how the work is done.
    """

    model: Annotated[str, tyro.conf.Positional]
    data: str
    out: str
    samples: int = 1
    temperature: float | None = None
    seed: int = 0
    shards: bool = True
    writing: tyro.conf.OmitArgPrefixes[WritingOptions] = WritingOptions()
    work: tyro.conf.OmitArgPrefixes[BulkOptions] = BulkOptions()


def run(args: list[str]) -> int:
    """Caption, and say how much."""
    asked = tyro.cli(Command, args=args, prog="multiway caption")
    how = _how(asked)
    with World.joined() as world:
        model, source, work = begin(asked.model, asked.data, asked.out, asked.work, world, bare=True)
        found = caption(model, source, how, work, world, say)
        if world.is_main:
            told = f"{found.counts.get('captions', 0):,} captions for {found.counts.get('pictures', 0):,} pictures"
            finish(asked.out, found, told, asked.work)
    return 0


def _how(asked: Command) -> Caption:
    """The task's own settings and checks, with as many texts as were asked for."""
    given: dict[str, Any] = {each.name: getattr(asked.writing, each.name) for each in fields(asked.writing)}
    task = cast(Captions, with_options(TASKS["captions"], given | {"temperature": asked.temperature}))
    try:
        generation = replace(task.generation, texts=asked.samples)
    except ValueError as error:
        raise ConfigError(
            f"--samples {asked.samples}: {error}; --strategy nucleus draws as many as are wanted"
        ) from error
    return Caption(generation, task.prompt, asked.seed, asked.shards)
