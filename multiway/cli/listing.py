"""`multiway list methods|recipes|data|tasks|layouts`."""

from __future__ import annotations

import inspect
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiway.cli.output import print_json

__all__ = ["run"]


def _methods() -> list[tuple[str, str]]:
    from multiway.methods import METHODS, method_class

    rows = []
    for name in METHODS:
        module = sys.modules[method_class(name).__module__]
        rows.append((name, (module.__doc__ or "").strip().splitlines()[0]))
    return rows


def _recipes() -> list[tuple[str, str]]:
    from multiway.recipes import RECIPES, recipe_function

    return [(name, (inspect.getdoc(recipe_function(name)) or "").splitlines()[0]) for name in RECIPES]


def _data() -> list[tuple[str, str]]:
    from multiway.data.annotated.binary_pictures import PICTURE_SETS
    from multiway.data.annotated.caption_sets import CAPTION_SETS
    from multiway.data.annotated.open import READERS
    from multiway.data.open import BUNDLED, splits_of

    published = {**CAPTION_SETS, **PICTURE_SETS, **READERS}
    return [(name, f"{text}; splits: {', '.join(splits_of(name))}") for name, text in BUNDLED.items()] + [
        ("captions.jsonl|csv|tsv|parquet", "a caption file, with --images FOLDER"),
        ("FOLDER/", "a folder of pictures with captions beside them"),
        ("'shards/{000..009}.tar'", "WebDataset shards"),
        *((f"{name}:FOLDER", each.about) for name, each in published.items()),  # type: ignore[attr-defined]
    ]


def _tasks() -> list[tuple[str, str]]:
    from multiway.tasks import TASKS

    return [
        (name, f"{(inspect.getdoc(type(task)) or '').splitlines()[0]} Needs: {', '.join(task.needs)}")
        for name, task in TASKS.items()
    ]


def _layouts() -> list[tuple[str, str]]:
    from importlib import import_module

    from multiway.hub.layouts import LAYOUTS, RELEASES, WRITERS

    def about(place: str) -> str:
        return (import_module(place).__doc__ or "").strip().splitlines()[0]

    read = [(f"hf: {kind}", about(place)) for kind, place in LAYOUTS.items()]
    files = [(name, f"A checkpoint file. {about(place)}") for name, (place, _) in RELEASES.items()]
    return read + files + [(f"--layout {name}", f"Written: {what}.") for name, what in WRITERS.items()]


_KINDS = {"methods": _methods, "recipes": _recipes, "data": _data, "tasks": _tasks, "layouts": _layouts}


def run(args: list[str]) -> int:
    """List one kind of thing."""
    usage = f"usage: multiway list {'|'.join(_KINDS)} [--json]"
    if "-h" in args or "--help" in args:
        print(usage)
        return 0
    kinds = [arg for arg in args if arg != "--json"]
    if len(kinds) != 1 or kinds[0] not in _KINDS:
        print(f"multiway list: given {' '.join(args) or 'nothing'}\n{usage}", file=sys.stderr)
        return 2
    kind = kinds[0]
    rows = _KINDS[kind]()
    if len(kinds) < len(args):
        print_json({kind: [{"name": name, "what": what} for name, what in rows]})
        return 0
    table = Table(kind, "")
    for name, what in rows:
        table.add_row(escape(name), escape(what))
    Console().print(table)
    return 0
