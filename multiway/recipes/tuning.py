"""What a run can be tuned for: for each task the recipe that does it.

The task decides what a run gets: a head on what it makes of picture and text, a decoder of answers, or a linear layer on its
pictures, which learns from labels or from a teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from multiway.config import ConfigError
from multiway.recipes.answer_writer import answer_writer, written
from multiway.recipes.classifier import classify
from multiway.recipes.distil import distil
from multiway.recipes.finetune import finetune, headed
from multiway.recipes.recipe import Recipe

__all__ = ["folder_of", "tuning", "ways"]


def ways() -> dict[str, Callable[..., Recipe]]:
    """For each task that a run can be tuned for, what gives the recipe."""
    found: dict[str, Callable[..., Recipe]] = dict.fromkeys(headed(), finetune)
    return found | {"classification": classify, "distil": distil} | dict.fromkeys(written(), answer_writer)


def tuning(run: str, task: str) -> Recipe:
    """The recipe that tunes a run for a task.

    Raises:
        ConfigError: for a task that nothing is tuned for, with those that there are.
        WeightsError: if there is no such run.
    """
    there = ways()
    if task not in there:
        raise ConfigError(f"no head is tuned for the task {task!r}; tasks that have one: {', '.join(there)}")
    way = there[task]
    return way(run) if way in (classify, distil) else way(run, task)


def folder_of(run: str, task: str) -> str:
    """Where the tuned run goes unless something else is said: after the run, its folder, or the name of an `hf:` model."""
    path = Path(run.removeprefix("hf:"))
    return f"runs/{path.parent.name if path.suffix == '.safetensors' and path.stem == 'model' else path.name}-{task}"
