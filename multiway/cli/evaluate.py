"""`multiway eval RUN --task retrieval --data emoji@composition`."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from multiway.cli.output import print_json, print_result
from multiway.config import ConfigError
from multiway.data.annotated.open import open_examples
from multiway.data.examples import Examples, HasNotes
from multiway.data.open import open_source
from multiway.data.source import Source
from multiway.engine.device import choose_device
from multiway.hub.model import Model
from multiway.recipes.unfinished import newest
from multiway.tasks import TASKS, Task
from multiway.tasks.example_task import ExampleTask
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
        image_column, caption_column: of a caption file, where their names are unusual.
        top: of `rerank`: items per query that the fused encoder scores again.
        mix: of `rerank` and `fusion`: weight of the cosine beside the log-odds of a match; by default 0, matching alone.
        tau: the cosine is divided by it before it is weighed. By default 1, whatever temperature the model has learned;
            give that one to weigh the logits that it was trained with.
        ks: of the retrieval tasks: the k of R@k; of `knn`: how many neighbours vote.
        frames: of `video-retrieval`: pictures of each video.
        train: of `knn` and `probe`: the split that is learnt from, of the same data, or `data@split`.
        features: of `knn` and `probe`: `embedding`, or `pooled`, the mean of the last tokens.
        cache: folder that embeddings are kept in, so that a second evaluation encodes nothing.
        device: `cpu`, `cuda`, or `auto`.
        precision: of the arithmetic; `bf16` is quicker where the machine has it.
        predictions: of tasks on annotated data: file to write what was predicted to, in the benchmark's own form.
        json: print one JSON object instead of a table.
    """

    model: Annotated[str, tyro.conf.Positional]
    task: str = "retrieval"
    data: str = "emoji@composition"
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    top: int | None = None
    mix: float | None = None
    tau: float | None = None
    ks: tuple[int, ...] = ()
    frames: int | None = None
    train: str = ""
    features: Literal["", "embedding", "pooled"] = ""
    cache: str = ""
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    predictions: str = ""
    json: bool = False


def run(args: list[str]) -> int:
    """Evaluate and print."""
    asked = tyro.cli(Evaluate, args=args, prog="multiway eval")
    if asked.task not in TASKS:
        raise ConfigError(f"there is no task {asked.task!r}; there are: {', '.join(TASKS)}")
    task = TASKS[asked.task]
    submission = getattr(task, "submission", None)
    if asked.predictions and submission is None:
        able = ", ".join(name for name, each in TASKS.items() if hasattr(each, "submission"))
        raise ConfigError(f"task `{asked.task}` predicts nothing that a benchmark takes; tasks that do: {able}")
    model, said = newest(asked.model, str(choose_device(asked.device)), asked.precision)
    _say(said)
    source: Source | Examples[Any]
    if isinstance(task, ExampleTask):
        source = open_examples(asked.data, asked.task, "test", asked.images)
    else:
        source = open_source(asked.data, asked.images, "test", asked.image_column or None, asked.caption_column or None)
    result = _measured(_with_options(task, asked), model, source, asked)
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


def _with_options(task: Task, asked: Evaluate) -> Task:
    """The task with the options that were given; one that it does not have is refused."""
    options = {name: getattr(asked, name) for name in ("top", "mix", "tau", "ks", "frames", "train", "features")}
    given = {name: value for name, value in options.items() if value not in (None, (), "")}
    known = {each.name for each in fields(task)}  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            able = [other for other, one in TASKS.items() if name in {each.name for each in fields(one)}]  # type: ignore[arg-type]
            raise ConfigError(f"task `{asked.task}` has no option --{name}; tasks that have it: {', '.join(able)}")
    if any(k < 1 for k in asked.ks) or (asked.top is not None and asked.top < 1):
        raise ConfigError(f"--top and --ks count from 1; given --top {asked.top} and --ks {asked.ks}")
    if asked.frames is not None and asked.frames < 1:
        raise ConfigError(f"--frames counts from 1; given {asked.frames}")
    if asked.top is not None and getattr(task, "top", None) == 0:
        raise ConfigError(
            f"task `{asked.task}` matches every pair; for those nearest only: --task rerank --top {asked.top}"
        )
    if asked.tau is not None and asked.mix is None:
        raise ConfigError(
            f"--tau {asked.tau:g} divides the cosine that --mix weighs, and changes nothing without it; add --mix"
        )
    if not math.isfinite(asked.mix or 0.0) or not 0.0 < (1.0 if asked.tau is None else asked.tau) < math.inf:
        raise ConfigError(f"--mix is a number and --tau one above 0; given --mix {asked.mix} and --tau {asked.tau}")
    return replace(task, **given)  # type: ignore[type-var]
