"""`multiway capfilt RUN --data web.tar --out clean/`: noisy pairs in, clean shards out.

Li et al., BLIP, 2022, arXiv 2201.12086, section 3.3, CapFilt. A captioner and a filter are fine-tuned from RUN on human captions,
each by itself. The captioner writes a caption for every picture; the filter drops captions, those that came with the picture
and those that were written, that it holds for no match; what is left is merged with the human pairs.

    OUT/captioner  OUT/filter     runs
    OUT/records/                  every caption with its score
    OUT/shards/                   the clean data: multiway train blip --data OUT/shards
    OUT/capfilt.json  OUT/report.html
    OUT/round-2/                  the same again by a model that was trained on OUT/shards (round-2/model)

The same command goes on where it was interrupted; under `torchrun` the ranks train together and share the shards out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from multiway.config import to_json
from multiway.data.open import open_source
from multiway.data.source import Source
from multiway.engine.agreement import on_main
from multiway.engine.device import choose_device
from multiway.hub.load import load
from multiway.hub.start import weights_hash
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import run_recipe
from multiway.workflows.blocks import blocks_of
from multiway.workflows.capfilt_clean import Cleaning, Say, clean, scored_rows, write_json
from multiway.workflows.capfilt_report import write_capfilt_report
from multiway.workflows.capfilt_runs import fine_tuned, retrained
from multiway.workflows.capfilt_scores import Cleaner, ModelCleaner
from multiway.workflows.capfilt_settings import CapFilt
from multiway.workflows.capfilt_shards import Place
from multiway.world import World

__all__ = ["NotFinished", "capfilt"]


class NotFinished(RuntimeError):
    """Training was asked to stop before its end; the same command goes on."""


def capfilt(
    run: str, asked: CapFilt, out: Path, world: World, say: Say = lambda text: None, console: Console | None = None
) -> list[Cleaning]:
    """Fine-tune, clean, and as often as asked train anew and clean again.

    Args:
        run: a pre-trained blip run.
        asked: what and how.
        out: folder of everything.
        world: ranks that share the work.
        say: told of every step.
        console: of the training lines; standard error by default.

    Returns:
        What each round did, as it stands in `OUT/capfilt.json`.

    Raises:
        ConfigError: if the folder holds another cleaning, or something is missing.
        DataError: if data cannot be used.
        NotFinished: if training was asked to stop.
    """
    asked = asked.with_human()
    source = open_source(
        asked.data,
        images=asked.images,
        image_column=asked.image_column or None,
        caption_column=asked.caption_column or None,
    )
    rounds: list[Cleaning] = []
    tokenizer = out / "tokenizer.json"
    for number in range(1, asked.rounds + 1):
        folder, model = (out, run) if number == 1 else (out / f"round-{number}", str(out / f"round-{number}" / "model"))
        if number > 1:
            on_main(world, lambda: _keep_tokenizer(run, tokenizer))
            data = rounds[-1].folder / "shards"
            say(f"round {number}: a new model on {data}")
            _train(retrained(run, data, tokenizer, asked.model_steps, asked.seed + number), Path(model), world, console)
        cleaner, identity = _parts(model, asked, folder, world, say, console)
        rounds.append(clean(source, asked, cleaner, folder, world, identity, model, say))
        on_main(world, lambda: _report(run, asked, source, out, rounds))
    return rounds


def _parts(
    model: str, asked: CapFilt, folder: Path, world: World, say: Say, console: Console | None
) -> tuple[Cleaner, dict[str, Any]]:
    """Captioner and filter, trained if need be, and what the scores depend on."""
    device = str(choose_device(asked.device, world.rank))
    steps = {"captioner": asked.captioner_steps, "filter": asked.filter_steps}
    given = {"captioner": asked.captioner, "filter": asked.filter}
    names: dict[str, str] = {}
    for part in ("captioner", "filter"):
        if part == "captioner" and "synthetic" not in asked.keep:
            continue
        names[part] = given[part] or (str(folder / part) if steps[part] else model)
        if not given[part] and steps[part]:
            say(f"{part}: {folder / part}, from {model}")
            recipe = fine_tuned(
                model, part, asked.human, asked.human_images, steps[part], asked.batch, asked.lr, asked.seed
            )
            _train(recipe, folder / part, world, console)
    loaded = {name: load(name, device, asked.precision) for name in dict.fromkeys(names.values())}
    captioner, judge = loaded.get(names.get("captioner", "")), loaded[names["filter"]]
    context = captioner.processor.tokenizer.context if captioner and captioner.processor.tokenizer else 2
    settings = asked.generation(context)
    hashes = {part: weights_hash(loaded[name].method.state_dict()) for part, name in names.items()}
    identity = {**hashes, "generation": to_json(settings) if captioner else None, "seed": asked.seed}
    return ModelCleaner(captioner, judge, settings), identity


def _train(recipe: Recipe, out: Path, world: World, console: Console | None) -> None:
    """A run, from wherever it stands; a finished one is left alone."""
    if not run_recipe(replace(recipe, out=str(out)), world, console).finished:
        raise NotFinished(f"{out} was stopped before its end; the same command goes on from there")


def _keep_tokenizer(run: str, path: Path) -> None:
    if not path.exists():
        tokenizer = load(run).processor.tokenizer
        assert tokenizer is not None
        path.write_text(tokenizer.to_json(), encoding="utf-8")


def _report(run: str, asked: CapFilt, source: Source, out: Path, rounds: Sequence[Cleaning]) -> None:
    """`capfilt.json` and `report.html` of what was done so far."""
    write_json(
        out / "capfilt.json", {"run": run, "asked": asdict(asked), "rounds": [each.to_json() for each in rounds]}
    )
    last = Place(rounds[-1].folder)
    scored = scored_rows(last, blocks_of(source, asked.rows_per_shard))
    write_capfilt_report(out / "report.html", run, asked, source, scored, rounds)
