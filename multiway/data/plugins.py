"""What other packages add through entry points: found by name, imported when it is asked for, and told when it is broken.

A group of entry points names functions or objects: `multiway.examples` readers of annotated data (`annotated/open.py`),
`multiway.tasks` tasks (`tasks/offered.py`). A name that multiway has itself stays its own; a package that cannot be imported
is named with its reason, and nobody who does not ask for it is stopped by it.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

__all__ = ["PluginError", "load_plugin", "offered", "report", "where"]

log = logging.getLogger(__name__)


class PluginError(ValueError):
    """What another package offers cannot be used; names the package, the object and the remedy."""


def offered(group: str, taken: Container[str]) -> dict[str, EntryPoint]:
    """Entry points of a group by name; the first of several that share one.

    Args:
        group: name of the group.
        taken: names that multiway has itself. One that is offered again is reported and left out.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        if entry.name in taken:
            report(
                f"{where(entry)} is left out: multiway has a `{entry.name}` of its own; its package should rename it"
            )
        elif entry.name in found and found[entry.name].value != entry.value:
            other = where(found[entry.name])
            report(f"{where(entry)} is left out: {other} has the name already; uninstall one of the two packages")
        else:
            found.setdefault(entry.name, entry)
    return found


def load_plugin(entry: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises:
        PluginError: if it cannot be imported, for whatever reason.
    """
    try:
        return entry.load()
    except Exception as error:  # a stranger's module may raise anything
        raise PluginError(
            f"{where(entry)} cannot be imported ({type(error).__name__}: {error}); repair or uninstall the package"
        ) from error


def where(entry: EntryPoint) -> str:
    """An entry point for people: group, name, object and package."""
    package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
    return f"{entry.group}: `{entry.name} = {entry.value}`{package}"


@lru_cache
def report(message: str) -> None:
    """Say once in this process what was left out, and go on."""
    log.warning(message)
