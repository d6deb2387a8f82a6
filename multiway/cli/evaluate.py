"""`multiway eval RUN --task retrieval --data emoji@composition`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from multiway.cli.output import print_json, print_result
from multiway.config import ConfigError
from multiway.data.annotated.open import open_examples
from multiway.data.examples import Examples
from multiway.data.open import open_source
from multiway.data.source import Source
from multiway.engine.device import choose_device
from multiway.hub.load import load
from multiway.tasks import TASKS, Task
from multiway.tasks.example_task import ExampleTask

__all__ = ["Evaluate", "run"]


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a task.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder.
        task: what to measure; `multiway list tasks` names them.
        data: `name[:path][@split]`, a caption file, a folder or a pattern of shards.
        images: folder that a caption file's paths are relative to.
        image_column, caption_column: of a caption file, where their names are unusual.
        top: of `rerank`: items per query that the fused encoder scores again.
        mix: of `rerank` and `fusion`: weight of the cosine beside the log-odds of a match; by default 0, matching alone.
        tau: the cosine is divided by it before it is weighed. By default 1, whatever temperature the model has learned;
            give that one to weigh the logits that it was trained with.
        ks: of the retrieval tasks: the k of R@k.
        device: `cpu`, `cuda`, or `auto`.
        precision: of the arithmetic; `bf16` is quicker where the machine has it.
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
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    json: bool = False


def run(args: list[str]) -> int:
    """Evaluate and print."""
    asked = tyro.cli(Evaluate, args=args, prog="multiway eval")
    if asked.task not in TASKS:
        raise ConfigError(f"there is no task {asked.task!r}; there are: {', '.join(TASKS)}")
    model = load(asked.model, str(choose_device(asked.device)), asked.precision)
    task = TASKS[asked.task]
    source: Source | Examples[Any]
    if isinstance(task, ExampleTask):
        source = open_examples(asked.data, asked.task, "test", asked.images)
    else:
        source = open_source(asked.data, asked.images, "test", asked.image_column or None, asked.caption_column or None)
    result = _with_options(TASKS[asked.task], asked).run(model, source)
    if asked.json:
        print_json(result.to_json())
    else:
        print_result(result, Console())
    return 0


def _with_options(task: Task, asked: Evaluate) -> Task:
    """The task with the options that were given; one that it does not have is refused."""
    options = {name: getattr(asked, name) for name in ("top", "mix", "tau", "ks")}
    given = {name: value for name, value in options.items() if value not in (None, ())}
    known = {each.name for each in fields(task)}  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            able = [other for other, one in TASKS.items() if name in {each.name for each in fields(one)}]  # type: ignore[arg-type]
            raise ConfigError(f"task `{asked.task}` has no option --{name}; tasks that have it: {', '.join(able)}")
    if any(k < 1 for k in asked.ks) or (asked.top is not None and asked.top < 1):
        raise ConfigError(f"--top and --ks count from 1; given --top {asked.top} and --ks {asked.ks}")
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
