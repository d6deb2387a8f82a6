"""`multiway capfilt RUN --data web.tar --human captions.jsonl --out clean/`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from multiway.cli.output import print_json
from multiway.workflows.capfilt import capfilt
from multiway.workflows.capfilt_clean import Cleaning
from multiway.workflows.capfilt_settings import CapFilt
from multiway.world import World

__all__ = ["Command", "run"]


@dataclass(frozen=True)
class Command:
    """Clean noisy pairs with a captioner and a filter, both fine-tuned from RUN; the same command goes on after a stop.

    Attributes:
        run: pre-trained blip run.
        data: noisy pairs; the training split unless `@split` names another.
        out: folder of runs, records, clean shards and report.
        images: folder that a caption file's paths are relative to.
        image_column: the caption file's column of paths, if unusual.
        caption_column: its column of captions, if unusual.
        human: pairs to trust; for scenes by default the same world without noise, of other pictures.
        human_images: folder that its paths are relative to.
        human_rows: pairs of scenes without noise, where `--human` is not given.
        captioner: model to write with as it is, in place of fine-tuning.
        filter: model to match with as it is, in place of fine-tuning.
        captioner_steps: of fine-tuning; 0 takes RUN as it is.
        filter_steps: of fine-tuning; 0 takes RUN as it is.
        model_steps: of the models of further rounds; 0 is RUN's own.
        batch: of fine-tuning; 0 is RUN's own.
        lr: peak of fine-tuning; 0 is 0.3 times RUN's own.
        strategy: how captions are written.
        top_p: mass of the nucleus.
        beams: of beam search.
        min_length: least tokens of a caption that is written.
        repetition_penalty: above 1 against words said before.
        texts: captions written for each picture.
        threshold: least match probability of what is kept; 0 keeps all.
        keep: where captions may come from, with commas between.
        rows_per_shard: where the data are no shards.
        rounds: cleanings; before each but the first a new model is trained on what the last one left.
        seed: of everything random.
        device: cpu, cuda, or auto.
        precision: of captioner and filter at work.
        threads: CPU threads; 0 leaves torch's choice.
        json: print one JSON object instead of a table.
    """

    run: Annotated[str, tyro.conf.Positional]
    data: str
    out: str
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    human: str = ""
    human_images: str = ""
    human_rows: int = 2000
    captioner: str = ""
    filter: str = ""
    captioner_steps: int = 300
    filter_steps: int = 300
    model_steps: int = 0
    batch: int = 0
    lr: float = 0.0
    strategy: Literal["nucleus", "beam"] = "nucleus"
    top_p: float = 0.9
    beams: int = 3
    min_length: int = 0
    repetition_penalty: float = 1.0
    texts: int = 1
    threshold: float = 0.5
    keep: str = "web,synthetic,human"
    rows_per_shard: int = 1000
    rounds: int = 1
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 0
    json: bool = False


def run(args: list[str]) -> int:
    """Clean, print the figures of the rounds, and say where the data are."""
    asked = tyro.cli(Command, args=args, prog="multiway capfilt")
    if asked.threads:
        torch.set_num_threads(asked.threads)
    values = {each.name: getattr(asked, each.name) for each in fields(CapFilt)}
    values["keep"] = tuple(name.strip() for name in asked.keep.split(",") if name.strip())
    with World.joined() as world:
        rounds = capfilt(
            asked.run,
            CapFilt(**values),
            Path(asked.out),
            world,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        if world.is_main:
            _print(rounds, asked)
    return 0


def _print(rounds: list[Cleaning], asked: Command) -> None:
    if asked.json:
        print_json({"run": asked.run, "rounds": [each.to_json() for each in rounds]})
        return
    shown = Table("", *(f"round {number}" for number in range(1, len(rounds) + 1)), title="% (95 % interval)")
    for name in dict.fromkeys(name for each in rounds for name in each.figures.metrics):
        found = [each.figures.metrics.get(name) for each in rounds]
        shown.add_row(
            name, *("" if m is None else f"{100 * m.value:.1f} ({100 * m.low:.1f}–{100 * m.high:.1f})" for m in found)
        )
    Console().print(shown)
    print(f"{rounds[-1].folder / 'shards'}, {Path(asked.out) / 'report.html'}")
