"""Work over millions of rows, part by part: shared out among ranks, gone on with after a stop, the same bytes whoever did it.

`multiway embed`, `caption` and `filter` differ in what they make of a part. What they share is here: the source is cut
(`blocks.py`); what is finished is left alone; of the rest a rank takes every W-th part; a part is put in its place whole
(`bulk_place.py`). A rank that is killed loses the part it was at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiway.config import ConfigError, digest
from multiway.data.rejected import REJECTED_CEILING
from multiway.data.source import DataError, Source
from multiway.engine.agreement import on_main
from multiway.engine.lock import RunLock
from multiway.hub.identity import model_identity
from multiway.hub.model import Model
from multiway.workflows.blocks import Block, wait_for, whole_blocks_of
from multiway.workflows.bulk_folder import claim
from multiway.workflows.bulk_place import Manifest, Part, Place
from multiway.world import World

__all__ = ["Asked", "Bulk", "Say", "Totals", "run_parts"]

Say = Callable[[str], None]

_SURE = 1000  # rows before which no share of unreadable pictures is believed


@dataclass(frozen=True)
class Asked:
    """What every bulk job is told.

    Attributes:
        out: folder of the results.
        where: how model and data were named, for those who open the folder later; no part of the identity.
        rows_per_part: of sources that are no shards.
        batch: pictures, texts or pairs in one pass of the model.
        workers: processes that decode pictures ahead of the model; 0 decodes in this one.
        ceiling: share of pictures that may be unreadable.
    """

    out: Path
    where: Mapping[str, Any]
    rows_per_part: int = 10_000
    batch: int = 256
    workers: int = 0
    ceiling: float = REJECTED_CEILING

    def __post_init__(self) -> None:
        if self.rows_per_part < 1 or self.batch < 1 or self.workers < 0 or not 0.0 <= self.ceiling <= 1.0:
            raise ConfigError(
                f"rows per part and batch count from 1, workers from 0, and the skip ceiling is a share; given "
                f"{self.rows_per_part}, {self.batch}, {self.workers} and {self.ceiling}"
            )


@dataclass(frozen=True)
class Totals:
    """What a stage came to, over all its parts.

    Attributes:
        parts, rows: how many.
        skipped: pictures that could not be read.
        counts: as the parts have them, added up.
    """

    parts: int
    rows: int
    skipped: int
    counts: dict[str, int]

    @classmethod
    def of(cls, found: Sequence[Manifest]) -> Totals:
        """Added up."""
        counts: dict[str, int] = {}
        for each in found:
            for name, value in each.counts.items():
                counts[name] = counts.get(name, 0) + value
        return cls(len(found), sum(each.rows for each in found), sum(len(each.skipped) for each in found), counts)


class Bulk:
    """A job in its folder: claimed by rank 0 and locked until the block is left.

    Args:
        verb: `embed`, `caption` or `filter`.
        model: that does it; its `batch` is set.
        source: over whose rows.
        asked: how.
        settings: of the verb, as JSON; with model, data and batch they are what the parts depend on.
        world: ranks that share the work.
        say: told how far it has come.

    Raises:
        BulkError: if the folder holds another job.
        RunLocked: if another process is at it.
        DataError: if there are no rows.
    """

    def __init__(
        self, verb: str, model: Model, source: Source, asked: Asked, settings: Mapping[str, Any], world: World, say: Say
    ) -> None:
        if not len(source):
            raise DataError(f"{source.name}@{source.split} has no rows; nothing can be made of it")
        self.source, self.asked, self.world, self.say = source, asked, world, say
        self.blocks = whole_blocks_of(source, asked.rows_per_part)
        model.batch = asked.batch
        self.identity: dict[str, Any] = {
            "verb": verb,
            "data": {
                "fingerprint": source.fingerprint,
                "rows": len(source),
                "parts": len(self.blocks),
                "cut": _cut(self.blocks),
            },
            "model": model_identity(model),
            "settings": {**settings, "batch": asked.batch},
        }
        self._lock: list[RunLock] = []
        on_main(
            world, lambda: self._lock.append(claim(asked.out, self.identity, asked.where)) if world.is_main else None
        )

    def place(self, stage: str, more: Mapping[str, Any] | None = None) -> Place:
        """A stage of it; `more`, of a second one, is what its parts depend on beside the job."""
        return Place(self.asked.out, stage, {**self.identity, **(more or {})}, second=more is not None)

    def run(
        self, place: Place, work: Callable[[Sequence[Block]], Iterator[Part]], pictures: str = "pictures"
    ) -> Totals:
        """Do what is not finished of a stage; see `run_parts`."""
        return run_parts(place, self.blocks, work, self.source.name, self.asked.ceiling, self.world, self.say, pictures)

    def __enter__(self) -> Bulk:
        return self

    def __exit__(self, *error: object) -> None:
        for lock in self._lock:
            lock.release()


def run_parts(
    place: Place,
    blocks: Sequence[Block],
    work: Callable[[Sequence[Block]], Iterator[Part]],
    name: str,
    ceiling: float,
    world: World,
    say: Say,
    things: str = "pictures",
) -> Totals:
    """Make what is missing of a stage's parts, this rank's share of it, and wait for the others' shares.

    Args:
        place: of the parts.
        blocks: all of them.
        work: makes some parts, in order, each when it is asked for.
        name: of the data, for messages.
        ceiling: share of rows that may be skipped.
        world: ranks.
        say: told of every part.
        things: the count that speed is told in.

    Raises:
        DataError: if too many rows are skipped; parts that are finished by then are kept.
        BulkError: if a part cannot be written.
    """

    def begin() -> tuple[list[int], Totals]:
        place.tidy()
        found = [place.finished(block.number) for block in blocks]
        missing = [block.number for block, each in zip(blocks, found, strict=True) if each is None]
        for number in missing:  # of a part that was damaged: other ranks wait for the manifest
            place.manifest(number).unlink(missing_ok=True)
        return missing, Totals.of([each for each in found if each is not None])

    missing, before = on_main(world, begin)
    if missing and before.parts and world.is_main:
        say(f"{before.parts:,} of {len(blocks):,} parts are finished; going on with the others")
    mine = [blocks[number] for number in missing[world.rank :: world.size]]
    least = min(sum(len(block.rows) for block in blocks), _SURE)
    rows, lost, began = before.rows, before.skipped, time.monotonic()
    for done, part in enumerate(work(mine), 1):
        made = place.keep(part)
        now = time.monotonic()
        speed, began = made.counts.get(things, made.rows) / max(1e-9, now - began), now
        skipped = f", {len(made.skipped):,} skipped" if made.skipped else ""
        say(
            f"{place.stage} {part.number:06d} ({done:,} of {len(mine):,}): {made.rows:,} rows{skipped}; {speed:,.0f} {things}/s"
        )
        rows, lost = rows + made.rows, lost + len(made.skipped)
        _refuse_too_many([made], lost, rows, name, ceiling, least)
    wait_for(world, [place.manifest(block.number) for block in blocks])
    return on_main(world, lambda: _finish(place, blocks, name, ceiling))


def _cut(blocks: Sequence[Block]) -> str:
    """Names where a source is cut: other parts under the same numbers would be other rows."""
    return f"at most {max(len(block.rows) for block in blocks)} rows, {digest([[block.rows[0], len(block.rows)] for block in blocks])}"


def _finish(place: Place, blocks: Sequence[Block], name: str, ceiling: float) -> Totals:
    found = [each for each in (place.finished(block.number) for block in blocks) if each is not None]
    if len(found) < len(blocks):
        raise DataError(
            f"{place.folder}: {len(blocks) - len(found)} finished parts have been changed meanwhile; start again"
        )
    place.list_skipped(found)
    totals = Totals.of(found)
    _refuse_too_many(found, totals.skipped, totals.rows, name, ceiling)
    return totals


def _refuse_too_many(
    found: Sequence[Manifest], lost: int, rows: int, name: str, ceiling: float, least: int = 0
) -> None:
    """Stop where more than the ceiling was skipped, of `rows` or of at least so many."""
    if lost <= ceiling * max(rows, least):
        return
    first = [f"\n  {each['where'] or each['key']}: {each['why']}" for made in found for each in made.skipped[:5]][:5]
    raise DataError(
        f"{name}: {lost:,} pictures of {rows:,} rows cannot be read, more than the {ceiling:.0%} that may be skipped; see what ails "
        f"them (`multiway data check`), or raise --skip-ceiling: what is finished is kept{''.join(first)}"
    )
