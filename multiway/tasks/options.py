"""Options of tasks, by name: checked, and put into the task.

An option reaches the task's field of its name; a task without such a field refuses it, and so does one for which the value would
change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from multiway.config import ConfigError
from multiway.tasks import TASKS, Task

__all__ = ["flag", "with_options"]

_Rule = tuple[Callable[[Any], bool], str]

_FROM_ONE: _Rule = (lambda value: value >= 1, "counts from 1")
_FROM_ZERO: _Rule = (lambda value: value >= 0, "counts from 0")
_POSITIVE: _Rule = (lambda value: 0.0 < value < math.inf, "is a number above 0")
_FINITE: _Rule = (math.isfinite, "is a number")

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("top", "frames", "iterations", "draws", "beams", "max_length", "resolution", "cells"), _FROM_ONE),
    **dict.fromkeys(("rows", "resamples"), _FROM_ONE),
    **dict.fromkeys(("min_length", "seed"), _FROM_ZERO),
    **dict.fromkeys(("tau", "repetition_penalty", "l2"), _POSITIVE),
    **dict.fromkeys(("mix", "length_penalty", "area"), _FINITE),
    "temperature": (lambda value: value > 0, "is above 0"),  # knn takes an infinite one: all neighbours alike
    "top_p": (lambda value: 0.0 < value <= 1.0, "lies above 0, at most at 1"),
    "shots": (lambda value: bool(value) and min(value) >= 1, "names numbers that count from 1"),
    "ks": (lambda value: bool(value) and min(value) >= 1, "names numbers that count from 1"),
    "templates": (
        lambda value: bool(value) and all(each.count("{}") == 1 for each in value),
        "names sentences with one {} each, where the class's name is to stand",
    ),
}

# What a way of writing has no use for: the option, and the strategy that has.
_STRATEGY_OF = {"beams": "beam", "length_penalty": "beam", "top_p": "nucleus", "temperature": "nucleus"}


def with_options(task: Task, options: Mapping[str, Any]) -> Task:
    """The task with the options that were given.

    Args:
        task: any.
        options: values by the name of the field; None where nothing was given.

    Raises:
        ConfigError: for an option that the task does not have, a value out of range, or one that would change nothing.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name not in _fields(task):
            able = [other for other, one in TASKS.items() if name in _fields(one)]
            raise ConfigError(
                f"task `{task.name}` has no option {flag(name)}; tasks that have it: {', '.join(able) or 'none'}"
            )
        holds, expected = _RULES.get(name, (lambda value: True, ""))
        if not holds(value):
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise ConfigError(f"{flag(name)} {expected}; given {shown if shown != '' else 'nothing'}")
    if "top" in given and getattr(task, "top", None) == 0:
        raise ConfigError(
            f"task `{task.name}` matches every pair; for those nearest only: --task rerank --top {given['top']}"
        )
    if "tau" in given and "mix" not in given:
        raise ConfigError(
            f"--tau {given['tau']:g} divides the cosine that --mix weighs, and changes nothing without it; add --mix"
        )
    strategy = given.get("strategy", getattr(task, "strategy", None))
    for name, own in _STRATEGY_OF.items():
        if strategy is not None and name in given and strategy != own:
            raise ConfigError(
                f"{flag(name)} is of --strategy {own}, and changes nothing with {strategy}; leave one of them out"
            )
    if not given:
        return task
    try:
        return replace(task, **given)  # type: ignore[type-var]
    except ValueError as error:  # values that do not fit together
        raise ConfigError(f"task `{task.name}`: {error}") from error


def flag(name: str) -> str:
    """A field as the command line spells it: `top_p` is `--top-p`."""
    return f"--{name.replace('_', '-')}"


def _fields(task: Task) -> set[str]:
    """Names of what can be set; another package's task need not be a dataclass, and then has nothing."""
    return {each.name for each in fields(task)} if is_dataclass(task) else set()
