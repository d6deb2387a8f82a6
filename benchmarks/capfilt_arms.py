"""Does cleaning captions help where half of them are wrong? CapFilt's four arms, by seeds.

    python benchmarks/capfilt_arms.py [--out runs/capfilt-arms] [--seeds 0 1 2] [--steps 600] [--threads 2] [--world scenes:...]

For each seed: BLIP at `tiny` is pre-trained on noisy scenes; a captioner and a filter are fine-tuned from it on clean pairs of
other pictures; everything is captioned and scored once. Then four new models are trained from random weights for as many steps,
on the same pictures and the same clean pairs, with the captions that each arm leaves:

    none        the web's own captions
    filter      those of them that the filter keeps
    captioner   all of the web's, and one written for each picture
    both        of both kinds those that the filter keeps

They are measured on clean held-out scenes. Finished runs and measurements are kept, so that the table grows over several starts.
Printed in markdown: means over seeds with the lowest and the highest, and each seed's filter against the generator's record.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from arms import train_arm
from rich.console import Console

from multiway.data.open import open_source
from multiway.data.source import Source
from multiway.hub.load import load
from multiway.recipes.blip import blip
from multiway.tasks import TASKS
from multiway.workflows.blocks import blocks_of
from multiway.workflows.capfilt import capfilt
from multiway.workflows.capfilt_clean import scored_rows
from multiway.workflows.capfilt_figures import tally
from multiway.workflows.capfilt_runs import retrained
from multiway.workflows.capfilt_settings import CapFilt
from multiway.workflows.capfilt_shards import Place, Verdict, clean_blocks, human_blocks
from multiway.world import World

NOISE = "attribute=0.1,missing=0.05,junk=0.05,swap=0.3"
ARMS: dict[str, Verdict] = {
    "none": Verdict(0.0, ("web", "human")),
    "filter": Verdict(0.5, ("web", "human")),
    "captioner": Verdict(0.0, ("web", "synthetic", "human")),
    "both": Verdict(0.5, ("web", "synthetic", "human")),
}
COLUMNS = {
    "wrong captions in the data": ("data", 100.0, "%"),
    "picture → words R@1": ("text_retrieval/R@1", 100.0, "%"),
    "words → picture R@1": ("image_retrieval/R@1", 100.0, "%"),
    "by encoders alone, mean R@1": ("dual/mean/R@1", 100.0, "%"),
    "caption nats per token": ("with_picture/nats", 1.0, ""),
}


class Nobody:
    """In place of captioner and filter where everything is scored already."""

    def write(self, source: Source, rows: Sequence[int], seed: int) -> list[list[str]]:
        """Not to be asked."""
        raise RuntimeError(f"rows {rows[0]} to {rows[-1]} have no scores; remove the arm's folder and start again")

    def match(self, source: Source, rows: Sequence[int], texts: Sequence[str]) -> list[float]:
        """Not to be asked."""
        raise RuntimeError(f"rows {rows[0]} to {rows[-1]} have no scores; remove the arm's folder and start again")


def run_seed(asked: argparse.Namespace, seed: int) -> dict[str, Any]:
    """All of one seed: filter figures, and what each arm's model is worth."""
    folder = asked.out / f"seed-{seed}"
    recipe = blip()
    settings = replace(recipe.settings, steps=asked.steps, seed=seed, threads=asked.threads)
    web = f"{asked.world},seed={10 * seed},samples={asked.samples},{NOISE}"
    train_arm(replace(recipe, data=web, settings=settings), folder / "pre")
    how = CapFilt(
        web,
        human_rows=asked.human,
        captioner_steps=asked.tune,
        filter_steps=asked.tune,
        strategy=asked.strategy,
        seed=seed,
    ).with_human()
    quiet = Console(quiet=True)
    (first,) = capfilt(
        str(folder / "pre"), how, folder / "clean", World(), lambda text: print(text, file=sys.stderr), quiet
    )
    tokenizer = folder / "tokenizer.json"
    words = load(folder / "pre").processor.tokenizer
    assert words is not None
    tokenizer.write_text(words.to_json(), encoding="utf-8")
    source = open_source(web)
    found: dict[str, Any] = {"filter": {name: each.value for name, each in first.figures.metrics.items()}, "arms": {}}
    for name, verdict in ARMS.items():
        place = _data(folder, name, verdict, source, how)
        model = retrained(folder / "pre", place.shards, tokenizer, asked.steps, seed + 1)
        train_arm(model, folder / f"{name}-model")
        measured = _measure(folder / f"{name}-model", f"{asked.world},gallery={asked.gallery}@test")
        left = tally(scored_rows(place, blocks_of(source, how.rows_per_shard)), verdict).metrics.get("clean/wrong")
        found["arms"][name] = {key: measured[key] for key, _, _ in COLUMNS.values() if key in measured}
        found["arms"][name]["data"] = left.value if left else 0.0
        print(f"seed {seed}, {name}: {found['arms'][name]}", file=sys.stderr, flush=True)
    return found


def _data(folder: Path, name: str, verdict: Verdict, source: Source, how: CapFilt) -> Place:
    """The shards of an arm, from the scores that all arms share."""
    place = Place(folder / name)
    if not (place.folder / "records").exists():
        shutil.copytree(folder / "clean" / "records", place.folder / "records")
    place.make()
    clean_blocks(source, blocks_of(source, how.rows_per_shard), Nobody(), verdict, place, how.seed)
    human = open_source(how.human)
    human_blocks(human, blocks_of(human, how.rows_per_shard), place)
    return place


def _measure(run: Path, data: str) -> dict[str, float]:
    """Re-ranked retrieval and captions by likelihood, on clean scenes of the world that all seeds share."""
    kept = run / "measured.json"
    if not kept.exists():
        model, test = load(run), open_source(data)
        results = [TASKS[task].run(model, test) for task in ("rerank", "captioning")]
        kept.write_text(json.dumps({n: m.value for result in results for n, m in result.metrics.items()}))
    return json.loads(kept.read_text())  # type: ignore[no-any-return]


def table(seeds: dict[int, dict[str, Any]]) -> str:
    """Markdown: a row for each arm, then the filter of each seed."""
    lines = ["| arm | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for arm in ARMS:
        cells = []
        for key, factor, unit in COLUMNS.values():
            values = [factor * found["arms"][arm][key] for found in seeds.values()]
            digits = 1 if unit else 3
            span = f" ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{unit and ' ' + unit}{span}")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    names = sorted({name for found in seeds.values() for name in found["filter"]})
    lines += ["", "| filter | " + " | ".join(f"seed {seed}" for seed in seeds) + " |", "|---" * (len(seeds) + 1) + "|"]
    for name in names:
        values = [found["filter"].get(name) for found in seeds.values()]
        lines.append(f"| {name} | " + " | ".join("" if v is None else f"{100 * v:.1f} %" for v in values) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/capfilt-arms"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--world", default="scenes:easy,objects=1-2")
    parser.add_argument("--steps", type=int, default=600, help="of pre-training, and of each arm")
    parser.add_argument("--tune", type=int, default=300, help="steps of captioner and filter, each")
    parser.add_argument("--samples", type=int, default=10_000, help="noisy pairs")
    parser.add_argument("--human", type=int, default=1000, help="clean pairs")
    parser.add_argument("--gallery", type=int, default=1000, help="held-out scenes")
    parser.add_argument("--strategy", choices=["nucleus", "beam"], default="nucleus")
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    found = {seed: run_seed(asked, seed) for seed in asked.seeds}
    print(table(found))


if __name__ == "__main__":
    main()
