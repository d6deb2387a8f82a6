"""Every task by name: multiway's own, and those that other packages offer under the group of entry points `multiway.tasks`.

A package names a task, or a dataclass that makes one with its defaults:

    [project.entry-points."multiway.tasks"]
    theirs = "their_package.theirs:Theirs"

Nothing of it is imported before somebody asks for that name or for all names. `docs/tasks/adding-a-task.md` has one whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Any, get_args

from multiway.abilities import ABILITIES
from multiway.data.examples import Kind
from multiway.data.plugins import PluginError, load_plugin, offered, report, where
from multiway.tasks.task import Task

__all__ = ["ENTRY_POINTS", "Tasks"]

ENTRY_POINTS = "multiway.tasks"
"""Group of entry points under which other packages name tasks of their own: `name = "package.module:Task"`."""

_OF_EXAMPLES = ("kind", "pictures", "best", "answers", "wanted", "submission")  # what `ExampleTask` adds to `Task`


class Tasks(Mapping[str, Task]):
    """Tasks with their default settings, by the name the command line uses.

    Asking for a task of another package that is broken raises `PluginError`, as does `name in tasks`; going through all of them
    reports it once and leaves it out.

    Args:
        own: those of multiway, whose names stay theirs.
    """

    def __init__(self, own: Iterable[Task]) -> None:
        self._own = {task.name: task for task in own}
        self._made: dict[str, Task] = {}

    @cached_property
    def _offered(self) -> dict[str, EntryPoint]:
        return offered(ENTRY_POINTS, self._own)

    def __getitem__(self, name: str) -> Task:
        if name in self._own:
            return self._own[name]
        if name not in self._made:
            self._made[name] = _task(self._offered[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        for name in self._offered:
            try:
                self[name]
            except PluginError as error:
                report(str(error))
            else:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _task(entry: EntryPoint) -> Task:
    """The task that an entry point names.

    Raises:
        PluginError: if it cannot be imported or made, or is no task.
    """
    found = load_plugin(entry)
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:  # a stranger's class may raise anything
            raise PluginError(
                f"{where(entry)} cannot be made without arguments ({type(error).__name__}: {error}); give its fields defaults"
            ) from error
    complaint = _complaint(entry.name, found)
    if complaint:
        raise PluginError(f"{where(entry)} is no task: {complaint}; see docs/tasks/adding-a-task.md")
    return found  # type: ignore[no-any-return]


def _complaint(name: str, task: Any) -> str:
    """What an object lacks to be a task of this name; empty for a good one."""
    if not is_dataclass(task) or isinstance(task, type):
        return f"it is {type(task).__name__}, expected an instance of a dataclass, whose fields are the task's settings"
    if getattr(task, "name", None) != name:
        return f"its `name` is {getattr(task, 'name', None)!r}, expected {name!r}, the name of the entry point"
    needs = getattr(task, "needs", None)
    if not isinstance(needs, tuple) or not all(need in ABILITIES for need in needs):
        return f"its `needs` is {needs!r}, expected a tuple of abilities: {', '.join(ABILITIES)}"
    if not callable(getattr(task, "run", None)):
        return "it has no method `run(model, source)`"
    if hasattr(task, "kind"):
        missing = [each for each in _OF_EXAMPLES if not hasattr(task, each)]
        if missing:
            return f"it has a `kind` of examples, but no {', '.join(missing)}, which a task on examples has"
        if task.kind not in get_args(Kind):
            return f"its `kind` is {task.kind!r}, expected one of {', '.join(get_args(Kind))}"
    return ""
