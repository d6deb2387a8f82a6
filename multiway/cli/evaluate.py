"""`multiway eval RUN --task retrieval --data emoji@composition`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from multiway.abilities import LacksAbility
from multiway.cli.output import print_json, print_result
from multiway.cli.task_options import (
    FigureOptions,
    FrozenOptions,
    GroundingOptions,
    RankingOptions,
    WritingOptions,
    ZeroShotOptions,
    flag,
    with_options,
)
from multiway.config import ConfigError
from multiway.data.annotated.open import open_examples
from multiway.data.examples import Examples, HasNotes
from multiway.data.open import open_source
from multiway.data.source import Source
from multiway.engine.device import choose_device
from multiway.hub.model import Model
from multiway.methods import methods_with
from multiway.recipes.unfinished import newest
from multiway.tasks import TASKS, Task
from multiway.tasks.example_task import ExampleTask, annotation
from multiway.tasks.frozen import teach
from multiway.tasks.rerank import Rerank
from multiway.tasks.task import Result
from multiway.workflows.feature_cache import FeatureCache

__all__ = ["Evaluate", "run"]


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a task.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder. Of a run that is still training its newest checkpoint is taken.
        task: what to measure; `multiway list tasks` names them.
        data: `name[:path][@split]`, a caption file, a folder or a pattern of shards.
        images: folder that a caption file's paths are relative to.
        image_column: of a caption file, where its name is unusual.
        caption_column: of a caption file, where its name is unusual.
        cache: folder that embeddings are kept in, so that a second evaluation encodes nothing.
        device: `cpu`, `cuda`, or `auto`.
        precision: of the arithmetic; `bf16` is quicker where the machine has it.
        predictions: of tasks on annotated data: file to write what was predicted to, in the benchmark's own form.
        json: print one JSON object instead of a table.
        ranking: of tasks that rank.
        writing: of tasks that write.
        grounding: of tasks that point.
        zeroshot: of classification by words.
        frozen: of tasks that learn from features.
        figures: of several tasks.
    """

    model: Annotated[str, tyro.conf.Positional]
    task: str = "retrieval"
    data: str = "emoji@composition"
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    cache: str = ""
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    predictions: str = ""
    json: bool = False
    # No prefix: options are called as ever, and --help shows each group by itself.
    ranking: tyro.conf.OmitArgPrefixes[RankingOptions] = RankingOptions()
    writing: tyro.conf.OmitArgPrefixes[WritingOptions] = WritingOptions()
    grounding: tyro.conf.OmitArgPrefixes[GroundingOptions] = GroundingOptions()
    zeroshot: tyro.conf.OmitArgPrefixes[ZeroShotOptions] = ZeroShotOptions()
    frozen: tyro.conf.OmitArgPrefixes[FrozenOptions] = FrozenOptions()
    figures: tyro.conf.OmitArgPrefixes[FigureOptions] = FigureOptions()

    @property
    def options(self) -> dict[str, Any]:
        """What was given of the options that only some tasks have, by name."""
        groups = (self.ranking, self.writing, self.grounding, self.zeroshot, self.frozen, self.figures)
        named = {each.name: getattr(group, each.name) for group in groups for each in fields(group)}
        return {name: value for name, value in named.items() if value is not None}


def run(args: list[str]) -> int:
    """Evaluate and print."""
    asked = tyro.cli(Evaluate, args=args, prog="multiway eval")
    if asked.task not in TASKS:
        raise ConfigError(f"there is no task {asked.task!r}; there are: {', '.join(TASKS)}")
    task = with_options(TASKS[asked.task], asked.options)
    submission = getattr(task, "submission", None)
    if asked.predictions and submission is None:
        able = ", ".join(name for name, each in TASKS.items() if hasattr(each, "submission"))
        raise ConfigError(f"task `{asked.task}` predicts nothing that a benchmark takes; tasks that do: {able}")
    model, said = newest(asked.model, str(choose_device(asked.device)), asked.precision)
    _say(said)
    source: Source | Examples[Any]
    if isinstance(task, ExampleTask):
        source = open_examples(asked.data, annotation(task), "test", asked.images)
    else:
        # Captions can be written of a split that withholds its own.
        columns = asked.image_column or None, asked.caption_column or None
        source = open_source(asked.data, asked.images, "test", *columns, bare=asked.predictions != "")
    try:
        result = _measured(task, model, source, asked)
    except LacksAbility as error:
        able = ", ".join(methods_with((*task.needs, *error.missing)))
        remedy = f"methods that have it: {able}" if able else f"a head has it: multiway finetune RUN --task {task.name}"
        raise LacksAbility(f"{error}; {remedy}", error.missing) from error
    except ValueError as error:
        # An option may be fit for the task and not for this model or these data; that is no fault of the program.
        if not asked.options or type(error) is not ValueError:
            raise
        given = ", ".join(map(flag, asked.options))
        raise ConfigError(f"task `{task.name}`, asked with {given}: {error}") from error
    if isinstance(task, ExampleTask):
        _say(*_beside(source, result))
    if asked.predictions and submission is not None:
        _write(Path(asked.predictions), submission(result))
        _say(f"predictions on {result.data}@{result.split}: {asked.predictions}")
    if asked.json:
        print_json(result.to_json())
    else:
        print_result(result, Console())
    return 0


def _measured(task: Task, model: Model, source: Any, asked: Evaluate) -> Result:
    """Run the task: its training split opened where it learns from one, features from the cache where there is one."""
    if isinstance(task, Rerank):
        task = replace(task, say=_say)

    def opened(data: str) -> Source:
        return open_source(data, asked.images, "train", asked.image_column or None, asked.caption_column or None)

    if not asked.cache:
        return teach(task, asked.data, opened).run(model, source)
    if isinstance(task, ExampleTask):
        raise ConfigError(f"--cache keeps embeddings, and task `{asked.task}` reads tokens; leave it out")
    with FeatureCache(asked.cache, model) as cache:
        result = teach(task, asked.data, lambda data: cache.source(opened(data))).run(cache.model, cache.source(source))
    if cache.read + cache.encoded:
        _say(f"{asked.cache}: {cache.read:,} embeddings were at hand, {cache.encoded:,} were encoded")
    else:
        _say(f"{asked.cache}: nothing was kept, since this task reads tokens, which take too much room")
    return result


def _beside(source: Any, result: Result) -> list[str]:
    """What must be said beside the figures: data that are a part of the published, rows left out, answers withheld."""
    said = [f"note: {note}" for note in source.notes] if isinstance(source, HasNotes) else []
    if source.rejected:
        said.append(f"{len(source.rejected):,} rows were left out, the first: {source.rejected[0]}")
    if not result.metrics:
        said.append(f"the answers of {result.data}@{result.split} are withheld: there are predictions and no score")
    return said


def _say(*sentences: str) -> None:
    """On the error stream, so that `--json` stays one object."""
    for sentence in filter(None, sentences):
        print(sentence, file=sys.stderr)


def _write(path: Path, predictions: Any) -> None:
    """Text as it is, other values as JSON; aside first, then renamed: a file of predictions is whole or not there."""
    text = predictions if isinstance(predictions, str) else json.dumps(predictions, ensure_ascii=False, indent=0) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
