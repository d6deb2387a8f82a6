"""One cleaning: blocks shared out among ranks, scored, decided and written; and what came out.

A folder belongs to the scores it holds. Other weights, data or ways of writing are refused; another verdict only writes the shards
anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiway.config import ConfigError, differences, to_json
from multiway.data.open import open_source
from multiway.data.source import Source
from multiway.engine.agreement import on_main
from multiway.workflows.blocks import Block, blocks_of, wait_for
from multiway.workflows.capfilt_figures import Figures, tally
from multiway.workflows.capfilt_scores import Cleaner, Scored, read_scores
from multiway.workflows.capfilt_settings import CapFilt
from multiway.workflows.capfilt_shards import (
    Place,
    Verdict,
    clean_blocks,
    finish_folder,
    human_blocks,
)
from multiway.world import World

__all__ = ["Cleaning", "Say", "clean", "scored_rows", "write_json"]

Say = Callable[[str], None]
FORMAT = 1  # of records and what stands beside them


@dataclass
class Cleaning:
    """One round.

    Attributes:
        folder: of its files.
        model: that captioner and filter come from.
        figures: what came out.
        human: pairs that were added.
    """

    folder: Path
    model: str
    figures: Figures = field(default_factory=Figures)
    human: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "folder": str(self.folder),
            "model": self.model,
            "data": str(self.folder / "shards"),
            "human": self.human,
            **self.figures.to_json(),
        }


def clean(
    source: Source,
    asked: CapFilt,
    cleaner: Cleaner,
    folder: Path,
    world: World,
    identity: Mapping[str, Any],
    model: str = "",
    say: Say = lambda text: None,
) -> Cleaning:
    """One cleaning of the source by these models.

    Args:
        source: the noisy pairs.
        asked: what stays, and how shards are cut.
        cleaner: captioner and filter.
        folder: of records and shards.
        world: ranks; each takes every W-th block.
        identity: what the scores depend on; a folder with others is refused.
        model: name of what the parts come from.
        say: told of every shard.
    """
    blocks, place = blocks_of(source, asked.rows_per_shard), Place(folder)
    human, people = None, []
    if "human" in asked.keep:
        human = open_source(asked.human, images=asked.human_images)
        people = blocks_of(human, asked.rows_per_shard)
    scoring = {"format": FORMAT, "data": source.fingerprint, "blocks": len(blocks), **identity}
    verdict = to_json(asked.verdict) | {"human": human.fingerprint if human else ""}
    on_main(world, lambda: _claim(place, scoring, verdict))
    mine = blocks[world.rank :: world.size]
    clean_blocks(source, mine, cleaner, asked.verdict, place, asked.seed, say)
    lost = human_blocks(human, people[world.rank :: world.size], place) if human else []
    for each in lost:
        say(f"left out: {each}")
    wait_for(world, [place.done(block) for block in blocks])
    found = Cleaning(folder, model, human=len(human) if human else 0)
    found.figures = on_main(world, lambda: _finish(source, blocks, place, asked.verdict))
    if world.is_main:
        _warn(found.figures, asked.threshold, say)
    return found


def scored_rows(place: Place, blocks: Sequence[Block]) -> Iterator[Scored]:
    """All records of a cleaning, in the order of the rows."""
    for block in blocks:
        yield from read_scores(place.records(block))


def _warn(figures: Figures, threshold: float, say: Say) -> None:
    """A filter that gives all the same answer has probably learnt nothing."""
    kept = [metric for name, metric in figures.metrics.items() if name in ("web/kept", "synthetic/kept")]
    count, every = sum(round(each.value * each.n) for each in kept), sum(each.n for each in kept)
    if threshold > 0 and every and count in (0, every):
        say(
            f"the filter kept {'all' if count else 'none'} of {every:,} captions: it may not have learnt to match (itm at its chance "
            "value 0.6365 in the filter's journal?), or the threshold is out of its range; see the histograms in the report"
        )


def _claim(place: Place, scoring: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
    """Make the folders ours, or refuse. Scores are kept for good; another verdict only writes the shards anew."""
    place.make()
    kept = place.folder / "scoring.json"
    # What was kept before there was a number is of the first format.
    before = {"format": 1, **json.loads(kept.read_text(encoding="utf-8"))} if kept.exists() else scoring
    changed = differences(before, json.loads(json.dumps(scoring)))
    if changed:
        said = "; ".join(map(str, changed))
        raise ConfigError(
            f"{place.folder} holds scores of another cleaning ({said}); choose another --out, or remove {place.folder / 'records'} "
            "and scoring.json to score anew"
        )
    write_json(kept, scoring)
    decided = place.folder / "verdict.json"
    if decided.exists() and json.loads(decided.read_text(encoding="utf-8")) != json.loads(json.dumps(verdict)):
        for old in (*place.folder.glob("done/*"), *place.shards.glob("*.tar*")):
            old.unlink()
    write_json(decided, verdict)


def _finish(source: Source, blocks: Sequence[Block], place: Place, verdict: Verdict) -> Figures:
    finish_folder(source, place)
    return tally(scored_rows(place, blocks), verdict)


def write_json(path: Path, value: Any) -> None:
    """Aside, then renamed: a file that is there is whole."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)
