"""CapFilt shard by shard: score a block of rows, decide, write what is kept.

    OUT/records/000012.jsonl        every caption of block 12 with its score and what is known of it
    OUT/shards/train-000012.tar     what of it was kept

Either is written aside and renamed, and never done again once it is there. Blocks know nothing of each other: a rank takes every
W-th, and the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiway.config import ConfigError
from multiway.data.rejected import Rejected
from multiway.data.shard_writer import write_facts, write_tar
from multiway.data.source import Row, Source
from multiway.workflows.blocks import Block
from multiway.workflows.capfilt_scores import Caption, Cleaner, Scored, read_scores, score_rows, write_scores

__all__ = ["KEEP", "Place", "Verdict", "clean_blocks", "finish_folder", "human_blocks"]

KEEP = ("web", "synthetic", "human")
"""Where captions of the clean data may come from."""


@dataclass(frozen=True)
class Verdict:
    """Which captions stay.

    Attributes:
        threshold: least match probability; 0 keeps all.
        keep: of `KEEP`.
    """

    threshold: float = 0.5
    keep: tuple[str, ...] = KEEP

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ConfigError(
                f"the threshold is {self.threshold}; expected a probability from 0, which keeps all, to 1"
            )
        unknown = [name for name in self.keep if name not in KEEP]
        if unknown or not self.keep:
            raise ConfigError(f"keep is {','.join(self.keep)!r}; expected one or more of {', '.join(KEEP)}")

    def keeps(self, caption: Caption) -> bool:
        """Whether one caption stays."""
        return caption.origin in self.keep and caption.match >= self.threshold


@dataclass(frozen=True)
class Place:
    """Where a cleaning puts its files."""

    folder: Path

    @property
    def shards(self) -> Path:
        """The folder of the clean data."""
        return self.folder / "shards"

    def records(self, block: Block) -> Path:
        """A block's scores."""
        return self.folder / "records" / f"{block.number:06d}.jsonl"

    def shard(self, block: Block, human: bool = False) -> Path:
        """A block's shard; its name states the split."""
        return self.shards / f"train-{'human-' if human else ''}{block.number:06d}.tar"

    def done(self, block: Block) -> Path:
        """Says that a block's shard is as it should be, if only because nothing of it was kept."""
        return self.folder / "done" / f"{block.number:06d}"

    def make(self) -> None:
        """Create the folders."""
        for name in ("records", "shards", "done"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)


def clean_blocks(
    source: Source,
    blocks: Sequence[Block],
    cleaner: Cleaner,
    verdict: Verdict,
    place: Place,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Score and write these blocks; what is finished already is left alone.

    Args:
        source: the noisy pairs.
        blocks: this rank's.
        cleaner: captioner and filter; asked only for what is not scored yet.
        verdict: what stays.
        place: of the files, folders made.
        seed: of what the captioner draws.
        say: told of each block.
    """
    for block in blocks:
        if place.done(block).exists():
            continue
        records = place.records(block)
        if not records.exists():
            write_scores(records, score_rows(source, block.rows, cleaner, "synthetic" in verdict.keep, seed))
        counts = {"web": [0, 0], "synthetic": [0, 0]}
        write_tar(place.shard(block), source, _kept(source, read_scores(records), verdict, counts))
        place.done(block).touch()
        told = ", ".join(f"{kept:,} of {all_:,} {origin}" for origin, (kept, all_) in counts.items() if all_)
        say(f"shard {block.number:06d}: {len(block.rows):,} pictures; kept {told or 'nothing'} captions")


def human_blocks(source: Source, blocks: Sequence[Block], place: Place) -> list[Rejected]:
    """Write the human pairs beside the cleaned ones, as they are; returns what could not be read."""
    lost: list[Rejected] = []
    for block in blocks:
        path = place.shard(block, human=True)
        if not path.exists():
            rows = ((row, source.row(row), {"origins": ["human"]}) for row in block.rows)
            lost += write_tar(path, source, rows).skipped
    return lost


def finish_folder(source: Source, place: Place) -> None:
    """Names of the classes and templates, beside the shards."""
    write_facts(place.shards, source)


def _kept(
    source: Source, scored: Iterator[Scored], verdict: Verdict, counts: dict[str, list[int]]
) -> Iterator[tuple[int, Row, Mapping[str, Any]]]:
    """Rows of which something is kept, with where each caption came from; equal captions are kept once."""
    for each in scored:
        stay: dict[str, Caption] = {}
        for caption in each.captions:
            counts[caption.origin][1] += 1
            if verdict.keeps(caption):
                counts[caption.origin][0] += 1
                stay.setdefault(caption.text, caption)
        if stay:
            row = source.row(each.row)
            said = Row(row.key, row.image_id, tuple(stay), row.label, row.where, row.group)
            facts = {
                "origins": [caption.origin for caption in stay.values()],
                "match": [caption.match for caption in stay.values()],
            }
            yield each.row, said, facts
