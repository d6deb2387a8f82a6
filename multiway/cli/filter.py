"""`multiway filter RUN --data SOURCE --out FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from multiway.cli.bulk_options import BulkOptions, begin, finish, say
from multiway.workflows.bulk_filter import Filter, filter_pairs, way_of
from multiway.world import World

__all__ = ["Command", "run"]


@dataclass(frozen=True)
class Command:
    """Score every caption with its picture and write those that fit as clean shards; the same command goes on after a stop.

    Another threshold on the same folder only writes the shards anew: all scores are kept.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder.
        data: `name[:path][@split]`, a caption file, a folder or a pattern of shards; all rows unless a split is named.
        out: folder of scores and shards.
        threshold: least score that stays; by `itm` a probability, 0.5 by default, by `itc` a cosine.
        keep: share of the pairs that stays, in place of a threshold.
        by: `itm`, picture and text read together, or `itc`, each by itself; by default the first where the model is able to.
        work: how the work is done.
    """

    model: Annotated[str, tyro.conf.Positional]
    data: str
    out: str
    threshold: float | None = None
    keep: float | None = None
    by: Literal["itm", "itc"] | None = None
    work: tyro.conf.OmitArgPrefixes[BulkOptions] = BulkOptions()


def run(args: list[str]) -> int:
    """Filter, and say what stayed."""
    asked = tyro.cli(Command, args=args, prog="multiway filter")
    with World.joined() as world:
        model, source, work = begin(asked.model, asked.data, asked.out, asked.work, world)
        by = way_of(model, asked.by)
        threshold = 0.5 if by == "itm" and asked.threshold is None and asked.keep is None else asked.threshold
        done = filter_pairs(model, source, Filter(by, threshold, asked.keep), work, world, say)
        if world.is_main:
            pairs, kept = done.scored.counts.get("pairs", 0), done.kept.counts.get("pairs", 0)
            spread = [f"{done.quantiles[each]:.4g}" for each in ("1", "50", "99") if each in done.quantiles]
            told = (
                f"{kept:,} of {pairs:,} pairs ({kept / max(1, pairs):.1%}) score {done.threshold:.4g} or more by {by}; "
                f"{done.kept.counts.get('pictures', 0):,} of {done.scored.counts.get('pictures', 0):,} pictures stay (1, 50 and 99 % of the "
                f"pairs score less than {', '.join(spread)})"
            )
            more = {"by": by, "threshold": done.threshold, "kept": done.kept.counts, "quantiles": done.quantiles}
            finish(asked.out, done.scored, told, asked.work, **more)
    return 0
