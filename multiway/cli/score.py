"""`multiway score RUN --data DATA --out scores.jsonl`: what a model makes of every row, for a curriculum or for the eye."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiway.cli.output import print_json
from multiway.data.open import open_source
from multiway.data.scores import write_scores
from multiway.data.source import Source
from multiway.engine.device import choose_device
from multiway.recipes.unfinished import newest
from multiway.workflows.row_scores import HIGH_IS_EASY, By, RowScores, best_kind, score_rows

__all__ = ["Score", "run"]

_SHOWN = 5


@dataclass(frozen=True)
class Score:
    """Score every row of some data, `{"key": ..., "score": ...}` a line. `multiway train ... --curriculum FILE` ranks rows by it.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder. Of a run that is still training its newest checkpoint is taken.
        data: `name[:path][@split]`, a caption file, a folder or a pattern of shards; the training split by default.
        out: file to write.
        by: `contrast`, how hard picture and caption are to find among others, in nats; `similarity` of the two; `match`, the probability
            that they belong together; `caption`, how unlikely the words are, in nats a token. By default the first of match, contrast
            and caption that the model can tell.
        images: folder that a caption file's paths are relative to.
        image_column: of a caption file, where its name is unusual.
        caption_column: of a caption file, where its name is unusual.
        gallery: rows that are encoded, and compared with one another, at once.
        seed: of who is in a gallery with whom.
        device: `cpu`, `cuda`, or `auto`.
        precision: of the arithmetic.
        threads: CPU threads; 0 leaves torch's choice.
        json: print one JSON object instead of a table.
    """

    model: Annotated[str, tyro.conf.Positional]
    data: str = "emoji@train"
    out: str = "scores.jsonl"
    by: Literal["auto", "contrast", "similarity", "match", "caption"] = "auto"
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    gallery: int = 256
    seed: int = 0
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 0
    json: bool = False


def run(args: list[str]) -> int:
    """Score, write, and show the ends of the ranking."""
    asked = tyro.cli(Score, args=args, prog="multiway score")
    if asked.threads:
        torch.set_num_threads(asked.threads)
    model, said = newest(asked.model, str(choose_device(asked.device)), asked.precision)
    if said:
        print(said, file=sys.stderr)
    columns = asked.image_column or None, asked.caption_column or None
    source = open_source(asked.data, asked.images, "train", *columns)
    by: By = best_kind(model) if asked.by == "auto" else asked.by
    found = score_rows(model, source, by, asked.gallery, asked.seed)
    out = Path(asked.out)
    rows = [{"key": key, "score": round(float(score), 6)} for key, score in zip(found.keys, found.scores, strict=True)]
    write_scores(out, rows)
    if found.unreadable:
        print(f"{len(found.unreadable)} pictures could not be read, the first: {found.unreadable[0]}", file=sys.stderr)
    easy = "high" if by in HIGH_IS_EASY else "low"
    if asked.json:
        quantiles = np.quantile(found.scores, [0, 0.1, 0.5, 0.9, 1]).tolist()
        print_json({"by": by, "easy": easy, "rows": len(rows), "quantiles": quantiles, "out": asked.out})
        return 0
    _show(found, source, by)
    print(f"{len(rows):,} rows by {by}: {out}; {easy} is easy: --curriculum {out} --pacing.easy {easy}")
    return 0


def _show(found: RowScores, source: Source, by: By) -> None:
    """The easiest and the hardest rows."""
    order = np.argsort(-found.scores if by in HIGH_IS_EASY else found.scores, kind="stable")
    table = Table("", by, "key", "caption", title=escape(f"{source.name}@{source.split}"))
    shown = min(_SHOWN, len(order) // 2 or 1)
    for said, some in (("easiest", order[:shown]), ("hardest", order[-shown:])):
        for row in some:
            words = source.row(int(row))
            table.add_row(said, f"{found.scores[row]:.3f}", escape(words.key), escape(" / ".join(words.captions)[:80]))
            said = ""
    Console().print(table)
