"""From a recipe to a trained run folder: the one place where data, method, engine, tasks and weights meet."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from multiway.batch import Batch, DataInfo
from multiway.config import ConfigError
from multiway.data.augment import finish
from multiway.data.curriculum import CurriculumOrder
from multiway.data.draws import SORTED
from multiway.data.loader import Loader
from multiway.data.mixture import Mixture
from multiway.data.open import ALL, parts_of, splits_of, subsets_of
from multiway.data.processor import Processor
from multiway.data.scores import scores_digest, scores_of
from multiway.data.source import Mixes, Source, SourceSpec
from multiway.engine.agreement import on_main
from multiway.engine.device import choose_device, choose_precision
from multiway.engine.loop import Outcome, train
from multiway.engine.optim import schedule
from multiway.engine.progress import ProgressLine
from multiway.engine.recorder import Recorder
from multiway.engine.run import Run
from multiway.engine.tracking import require, targets
from multiway.engine.tracking_thread import Tracking
from multiway.hub.file import write_model
from multiway.hub.load import load, load_sources
from multiway.hub.model import Model
from multiway.hub.origin import Origin, joined, of_data, or_unknown
from multiway.hub.sources import Sources
from multiway.hub.start import Started, weights_hash
from multiway.methods import Method
from multiway.methods.kept import merged
from multiway.nn.batch_norm import across_ranks
from multiway.recipes.recipe import Recipe
from multiway.tasks import TASKS
from multiway.tasks.frozen import teach
from multiway.world import World

__all__ = ["Prepared", "evaluate_model", "prepare", "run_recipe"]


@dataclass
class Prepared:
    """Everything that a recipe names, opened and built, before a step is taken."""

    recipe: Recipe
    source: Source
    processor: Processor
    info: DataInfo
    method: Method
    loader: Loader
    started: Started | None = None
    init_hash: str = ""
    scores: str = ""
    origin: Origin = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Names the rows, and with a curriculum the scores that they are ranked by."""
        return f"{self.source.fingerprint}+{self.scores}" if self.scores else self.source.fingerprint

    def finish(self, batch: Batch) -> Batch:
        """What the device does to a batch first."""
        return finish(batch, self.recipe.view, self.recipe.drawn)

    def model(self, method: Method | None = None) -> Model:
        """The method in training as something that can be evaluated."""
        return Model(method or self.method, self.processor, origin=self.origin)


def prepare(recipe: Recipe, world: World) -> Prepared:
    """Open the data, learn or load the tokeniser, and build the method with its random initialisation.

    Raises:
        DataError: if the data cannot be used.
        WeightsError: if `init` does not fit.
    """
    source = recipe.open(recipe.data, "train")
    sources = load_sources(recipe.init) if recipe.init else None
    tokenizer: Any  # a recipe whose `tokeniser` is None takes None where others take one
    tokenizer = sources.tokenizer if sources is not None and not recipe.tokenizer.path else None
    if tokenizer is None:
        tokenizer = recipe.tokeniser(source)
    elif recipe.init_context:
        tokenizer = tokenizer.of_context(recipe.init_context)
    info = recipe.info(source, tokenizer)
    torch.manual_seed(recipe.settings.seed)
    method = recipe.build(info)
    if recipe.over_ranks:
        method = across_ranks(method, world)
    started, init_hash = None, ""
    if sources is not None:
        started, init_hash = sources.fill(method.starting, recipe.init_except, texts=recipe.init_context > 0)
    loader = recipe.loader(source, tokenizer, info, world)
    scores = _ranked(recipe, source, loader) if recipe.curriculum else ""
    processor, origin = Processor(recipe.view, tokenizer), _origin(recipe, sources)
    return Prepared(recipe, source, processor, info, method, loader, started, init_hash, scores, origin)


def _origin(recipe: Recipe, sources: Sources | None) -> Origin:
    """Whose weights a run has begun from or was lent, and its data."""
    lent = [or_unknown(model.origin, path, model.name) for path in recipe.lenders() for model in (load(path),)]
    return joined([] if sources is None else sources.origin, *lent, of_data(recipe.data, recipe.name))


def _ranked(recipe: Recipe, source: Source, loader: Any) -> str:
    """Let a loader's rows come from easy to hard; the digest of their scores."""
    if not isinstance(loader, Loader):
        raise ConfigError(
            f"--curriculum ranks rows of pictures and captions; `{recipe.name}` learns from other batches ({type(loader).__name__})"
        )
    if isinstance(source, Mixes) or recipe.settings.shuffle != "global":
        given = "data are a mixture" if isinstance(source, Mixes) else f"shuffle is {recipe.settings.shuffle}"
        raise ConfigError(
            f"--curriculum {recipe.curriculum} says which rows stand where, and so does another: {given}; give one source, --shuffle global"
        )
    scores, settings = scores_of(source, recipe.curriculum), recipe.settings
    loader.reorder(CurriculumOrder(scores, recipe.pacing, settings.end_of_schedule, settings.batch, settings.seed))
    return scores_digest(scores)


def evaluate_model(model: Model, recipe: Recipe) -> dict[str, Any]:
    """All of a recipe's evaluations: {`task@data@split/metric`: metric as JSON}."""
    metrics: dict[str, Any] = {}
    for task, data in evaluations(recipe):
        if task not in TASKS:
            raise ConfigError(f"evaluate names the task {task!r}; there are: {', '.join(TASKS)}")
        source = recipe.open(data, "val")
        taught = teach(TASKS[task], data, lambda name: recipe.open(name, "train"))
        result = taught.run(model, source)
        for name, metric in result.to_json()["metrics"].items():
            metrics[f"{Path(source.name).name}@{source.split}/{name}"] = metric
    return metrics


def evaluations(recipe: Recipe) -> list[tuple[str, str]]:
    """(task, data) of each entry of `evaluate`; of `task=@held-out` nothing, where the recipe learns from all of its data."""
    found = []
    for entry in recipe.evaluate:
        task, _, spec = entry.partition("=")
        if not spec.startswith("@"):
            found.append((task, spec))
            continue
        parts = parts_of(recipe.data)
        if spec == "@held-out":
            named = [(part, _held_out(recipe, part)) for part in parts]
        else:
            split = spec.removeprefix("@")
            # Of several sources those that have it; if none has, opening the first says so.
            having = [part for part in parts if len(parts) == 1 or split in _splits(recipe, part)]
            named = [(part, split) for part in having or parts]
        found += [(task, str(replace(part, split=split))) for part, split in named if split]
    return found


def _splits(recipe: Recipe, part: SourceSpec) -> tuple[str, ...]:
    columns = recipe.image_column or None, recipe.caption_column or None
    return (*splits_of(str(part), recipe.images, *columns), *subsets_of(str(part)), ALL)


def _held_out(recipe: Recipe, own: SourceSpec) -> str:
    """The first split of a recipe's data that it does not learn from; empty if there is none."""
    there = splits_of(str(own), recipe.images, recipe.image_column or None, recipe.caption_column or None)
    learnt = {part.split or "train" for part in parts_of(recipe.data) if (part.name, part.path) == (own.name, own.path)}
    others = [split for split in there if ALL not in learnt and split not in learnt]
    return others[0] if others else ""


def run_recipe(recipe: Recipe, world: World, console: Console | None = None) -> Outcome:
    """Train a recipe in its run folder, from wherever that left off, and write `model.safetensors`.

    Raises:
        RunMismatch: if the folder holds a run of another configuration.
        TrackingError: if the library of a tracker is missing.
    """
    console = console or Console(stderr=True)
    trackers = targets(recipe.settings.track)
    on_main(world, lambda: require(trackers))
    recipe = _settled(recipe, world)
    ready = prepare(recipe, world)
    # Weights under the same name may be others by the time a run is resumed.
    identity = recipe.identity() | ({"init_hash": ready.init_hash} if ready.init_hash else {})
    if len(ready.source) > SORTED:  # runs of so many rows that are older than this had another order
        identity["order"] = "scattered"
    if recipe.lenders():
        identity["lent"] = {path: weights_hash(load(path).method.state_dict()) for path in recipe.lenders()}
    run = Run.open(Path(recipe.out), identity, recipe.operational(), ready.fingerprint, world)
    rejected = [str(each) for each in getattr(ready.source, "rejected", ())]

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    with run, Tracking.of(run, trackers, say) as tracking:
        if world.is_main:
            console.print(
                f"[bold]{recipe.name}[/] {recipe.preset}: {_counted(ready.method, recipe)}, {len(ready.source):,} rows of "
                f"{ready.source.name}@{ready.source.split}, run folder {recipe.out}",
                highlight=False,
            )
            if ready.started:
                console.print(f"from {recipe.init}: {ready.started}", highlight=False)
            settings = recipe.settings
            end = settings.end_of_schedule
            done = schedule(end, end, settings.optimiser) == 0 and not settings.optimiser.constant_rate
            if settings.steps > end and done:
                console.print(
                    f"steps after {settings.end_of_schedule} (--horizon) train at learning rate 0 and change nothing; "
                    "a new run with a larger --steps would use them",
                    highlight=False,
                )
            if rejected:
                console.print(
                    f"{len(rejected)} rows were left out, the first: {rejected[0]} (all in skipped.jsonl)",
                    highlight=False,
                )

            for _, data in evaluations(
                recipe
            ):  # a split that is not there is better missed now than when training is over
                recipe.open(data, "val")

        def evaluate(method: Method, step: int) -> tuple[dict[str, Any], float | None]:
            metrics = evaluate_model(ready.model(method), recipe)
            chosen = [metric["value"] for name, metric in metrics.items() if name.endswith(recipe.best)]
            return metrics, (sum(chosen) / len(chosen) if chosen else None)

        with ProgressLine(recipe.settings.steps, console=console) as progress:
            recorder = Recorder(run, recipe.settings, say, rejected, tracking, _passed(ready))
            outcome = train(
                ready.method,
                ready.loader,
                recipe.settings,
                world,
                recorder,
                finish=ready.finish,
                evaluate=evaluate if recipe.evaluate else None,
                progress=progress,
            )
        if world.is_main and outcome.method is not None:
            write_model(run.model_file, merged(outcome.method), ready.processor, ready.origin)
            console.print(_closing(outcome, recipe), highlight=False)
        tracking.status = "finished" if outcome.finished else "stopped"
    return outcome


def _passed(ready: Prepared) -> Callable[[int], dict[str, Any]]:
    """What the journal says of a step besides: how often each source of a mixture has been passed."""
    source, batch = ready.source, ready.recipe.settings.batch
    return lambda step: {"passes": source.passes(step * batch)} if isinstance(source, Mixture) else {}


def _settled(recipe: Recipe, world: World) -> Recipe:
    """The recipe with `auto` precision decided, so that a run resumed on another machine cannot change it in silence."""
    precision = choose_precision(recipe.settings.precision, choose_device(recipe.settings.device, world.rank))
    return replace(recipe, settings=replace(recipe.settings, precision=precision))


def _counted(method: Method, recipe: Recipe) -> str:
    """How many numbers the method has, and how many of them learn where that is not all."""
    rules = [*recipe.settings.optimiser.rules, *method.learning_rates()]

    def learns(name: str) -> bool:
        return next((factor for pattern, factor in rules if re.search(pattern, name)), 1.0) > 0

    named = list(method.named_parameters())
    every = sum(each.numel() for _, each in named)
    learnt = sum(each.numel() for name, each in named if each.requires_grad and learns(name))
    said = f"{every / 1e6:.2f} M parameters"
    return said if learnt == every else f"{said}, {learnt / 1e6:.2f} M of which learn"


def _closing(outcome: Outcome, recipe: Recipe) -> str:
    said = [f"{'finished' if outcome.finished else 'stopped'} at step {outcome.step}"]
    if outcome.resumed_at:
        said.append(f"resumed at step {outcome.resumed_at}")
    if outcome.skipped_steps:
        said.append(f"{outcome.skipped_steps} steps skipped because their gradient was not finite")
    if outcome.bad_rows:
        said.append(f"{outcome.bad_rows} unreadable rows replaced (see skipped.jsonl)")
    if not outcome.finished:
        said.append("the same command goes on from here")
    return "; ".join(said) + f". Weights: {recipe.out}/model.safetensors"
