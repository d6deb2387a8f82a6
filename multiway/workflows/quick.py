"""`mw.train`, `mw.finetune`, `mw.evaluate`: what the verbs of the same names do, as functions of Python.

They make and resume the same run folders as the command line, and take its options as keyword arguments.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from multiway.config import ConfigError
from multiway.data.annotated.open import open_examples
from multiway.data.open import open_source
from multiway.data.source import Source
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.recipes.options import named_recipe, with_options
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import run_recipe
from multiway.recipes.tuning import folder_of, tuning
from multiway.recipes.unfinished import newest
from multiway.tasks import TASKS
from multiway.tasks import options as task_options
from multiway.tasks.example_task import ExampleTask, annotation
from multiway.tasks.frozen import teach
from multiway.tasks.task import Result, Task
from multiway.world import World

__all__ = ["evaluate", "finetune", "train"]


def train(recipe: str | Recipe = "clip", *, preset: str | None = None, quiet: bool = False, **options: Any) -> Model:
    """Train a method, or go on where its run folder left off: `multiway train`.

    mw.train("clip", data="pairs.csv", images="pictures/", out="runs/mine", steps=300)
    mw.train("clip", data="pairs.csv", images="pictures/", out="runs/tuned", init="runs/demo", steps=100, lr=3e-4)

    Args:
        recipe: its name (`multiway list recipes`), or one that is made already.
        preset: size of the method; mostly `tiny` by default.
        quiet: show no progress.
        options: any option of the command line (`recipes/options.py`). `out` is the run folder; by default `runs/NAME-PRESET`.

    Returns:
        The model of the run; of a recipe in stages, of the last.

    Raises:
        ConfigError: for an option that there is not, or a value that does not fit.
        DataError: if the data cannot be used.
        RunMismatch: if the folder holds a run of another configuration.
    """
    if isinstance(recipe, str):
        asked = named_recipe(recipe, preset, options)
    elif preset is not None:
        raise ConfigError(
            f"preset={preset!r} is for a recipe by its name; given one that is made already, {recipe.name}"
        )
    else:
        asked = with_options(recipe, options)
    if not asked.out:
        asked = replace(asked, out=f"runs/{asked.name}-{asked.preset}")
    return _run([part for _, part in asked.stages()], quiet)


def finetune(run: str | Path, task: str = "vqa", *, quiet: bool = False, **options: Any) -> Model:
    """Tune a run for a task, with a head for it: `multiway finetune`.

    To go on training on other pairs, without a head, begin a run from it: `mw.train(..., init=run)`.

    Args:
        run: folder, weights file, or `hf:` name.
        task: what for; `multiway finetune` lists them.
        quiet: show no progress.
        options: as of `train`.

    Returns:
        The tuned model, which has the task's ability.

    Raises:
        ConfigError: for a task that nothing is tuned for, an option that there is not, or a value that does not fit.
    """
    asked = with_options(tuning(str(run), task), options)
    return _run([asked if asked.out else replace(asked, out=folder_of(str(run), task))], quiet)


def evaluate(
    model: Model | str | Path,
    task: str | Task = "retrieval",
    data: str | Path | Source = "emoji@composition",
    *,
    images: str | Path = "",
    **options: Any,
) -> Result:
    """Measure a model on a task: `multiway eval`.

    Args:
        model: that `mw.load` or `mw.train` gave, or what names one; of a run that is still training its newest checkpoint is taken.
        task: its name (`multiway list tasks`), or one that is made already.
        data: what names them, `name[:path][@split]`, the split `test` by default; or a source that is open.
        images: folder that a caption file's paths are relative to.
        options: of the task, as the command line has them: `ks=(1, 5)`.

    Returns:
        Metrics by name, each with value, 95 % interval, number of queries and chance value. `print` shows them.

    Raises:
        LacksAbility: if the model cannot do what the task needs.
        ConfigError: for a task, or an option of it, that there is not.
        DataError: if the data cannot be used, or have no such split.
    """
    if isinstance(task, str):
        if task not in TASKS:
            raise ConfigError(f"there is no task {task!r}; there are: {', '.join(TASKS)}")
        task = TASKS[task]
    task = task_options.with_options(task, options)
    if not isinstance(model, Model):
        model, said = newest(str(model))
        if said:
            warnings.warn(said, stacklevel=2)
    if isinstance(data, str | Path):
        opened: Any = (
            open_examples(str(data), annotation(task), "test", images)
            if isinstance(task, ExampleTask)
            else open_source(str(data), images, "test")
        )
    else:
        opened = data
    named = str(data) if isinstance(data, str | Path) else data.name
    return teach(task, named, lambda other: open_source(other, images)).run(model, opened)


def _run(parts: list[Recipe], quiet: bool) -> Model:
    """Runs one after the other, and the model of the last."""
    console = Console(stderr=True, quiet=quiet)
    with World.joined() as world:
        for part in parts:
            finished = run_recipe(part, world, console).finished
            world.barrier()  # the next stage reads the weights that the main rank has written
            if not finished:
                break
    return load(part.out)
