"""Several runs in a row as one recipe: each begins from the one before, in a folder of its own under the recipe's.

    RUN/1-short   RUN/2-full          a run each: killed and started again, the first that is not finished goes on

A stage is the recipe with some fields changed: its data, losses, sizes, what is frozen, steps, batch, rates. A recipe writes its own
down (`Recipe.stages`); for any other they are written on the command line, by the options that every run has:

    multiway train clip --out runs/a --stage dropped --drop 0.5 --stage whole --steps 60 --lr 1e-5

What stands before the first `--stage` holds for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from multiway.config import ConfigError
from multiway.recipes.recipe import Recipe

__all__ = ["Stage", "as_recipe", "chained", "changed", "derived", "runs", "split_stages"]

R = TypeVar("R", bound=Recipe)
T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Stage:
    """One run of a recipe.

    Attributes:
        name: of its folder, after its number.
        changes: fields of the recipe by dotted names, `{"settings.steps": 60, "drop": 0.0}`, and what they are here.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)


def runs(recipe: Recipe, stages: Sequence[Stage]) -> tuple[tuple[str, Recipe], ...]:
    """(name, recipe) of each stage, in order: what `Recipe.stages` gives.

    Args:
        recipe: what all stages share; the first begins from its `init`.
        stages: in order. One that sets `init` itself begins from that.
    """

    return chained(recipe, [(stage.name, partial(changed, changes=stage.changes)) for stage in stages])


def chained(recipe: Recipe, stages: Sequence[tuple[str, Callable[[Recipe], Recipe]]]) -> tuple[tuple[str, Recipe], ...]:
    """As `runs`, of stages that are any function of the shared recipe, which has folder and source of weights filled in."""
    found: list[tuple[str, Recipe]] = []
    for number, (name, change) in enumerate(stages, 1):
        label = f"{number}-{name}"
        before = found[-1][1].out if found else recipe.init
        found.append((label, change(replace(recipe, out=str(Path(recipe.out) / label), init=before))))
    return tuple(found)


def as_recipe(recipe: Recipe, kind: type[R]) -> R:
    """The fields that a recipe of stages has from the recipe it derives from, as that."""
    return kind(**{each.name: getattr(recipe, each.name) for each in fields(kind)})


def derived(recipe: Recipe, kind: type[R], **more: Any) -> R:
    """The other way round: a recipe of stages with all fields of the one that it derives from, and some of its own."""
    return kind(**{each.name: getattr(recipe, each.name) for each in fields(recipe)} | more)


def changed(value: T, changes: Mapping[str, Any]) -> T:
    """A dataclass with other values of some fields, also of those within it: `{"settings.optimiser.warmup": 0.1}`.

    Raises:
        ConfigError: for a field that is not there, naming those that are.
    """
    nested: dict[str, dict[str, Any]] = {}
    new: dict[str, Any] = {}
    for path, wanted in changes.items():
        name, _, rest = path.partition(".")
        owner = getattr(value, name, None)
        known = [each.name for each in fields(value)]  # type: ignore[arg-type]
        if name not in known or (rest and not is_dataclass(owner)):
            raise ConfigError(f"{type(value).__name__} has no field {path!r}; there are: {', '.join(known)}")
        if rest:
            nested.setdefault(name, {})[rest] = wanted
        else:
            new[name] = wanted
    new |= {name: changed(getattr(value, name), inner) for name, inner in nested.items()}
    return replace(value, **new)  # type: ignore[type-var]


def split_stages(args: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Command-line options before the first `--stage`, and (name, options) of each stage.

    Raises:
        ConfigError: for a stage without a name, or one that is no name of a folder; for a stage with a folder of its own.
    """
    shared: list[str] = []
    stages: list[tuple[str, list[str]]] = []
    place = 0
    while place < len(args):
        arg = args[place]
        if arg == "--stage" or arg.startswith("--stage="):
            place += arg == "--stage"
            name = args[place].removeprefix("--stage=") if place < len(args) else ""
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"--stage {name}: expected a name of letters, digits and hyphens, then the stage's options: --stage short --view.size 32"
                )
            stages.append((name, []))
        elif stages and arg.partition("=")[0] == "--out":
            raise ConfigError(
                f"{arg} after --stage {stages[-1][0]}: stages are folders of one run; give --out before the first of them"
            )
        elif arg == "--dry-run":  # of all stages, wherever it stands
            shared.append(arg)
        else:
            (stages[-1][1] if stages else shared).append(arg)
        place += 1
    return shared, stages
