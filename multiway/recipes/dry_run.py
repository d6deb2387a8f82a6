"""`--dry-run`: what would be trained, without training it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.methods import Method
from multiway.methods.method import Step
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import Prepared, prepare
from multiway.world import World

__all__ = ["ROWS", "dry_run", "parameter_table", "picture_of_batch"]

ROWS = 256


def parameter_table(method: Method) -> list[tuple[str, str, int]]:
    """(part, class, parameters) of a method's direct parts, its loose parameters first."""
    loose = sum(parameter.numel() for parameter in method.parameters(recurse=False))
    rows = [("(own)", type(method).__name__, loose)] if loose else []
    for name, part in method.named_children():
        rows.append((name, type(part).__name__, sum(parameter.numel() for parameter in part.parameters())))
    return rows


def picture_of_batch(batch: Batch, view: ViewSpec, columns: int = 16, rows: int = 4) -> Image.Image:
    """The first pictures of a batch as the method sees them, augmented, in a grid; small ones enlarged. Where the method learns from
    views, all views of a picture stand below one another."""
    kinds = [*([] if batch.images is None else [batch.images]), *batch.views]
    count = min(len(kinds[0]), columns * max(1, rows // len(kinds)))  # examples may share pictures, or be about two
    mean, std = torch.tensor(view.mean).view(3, 1, 1), torch.tensor(view.std).view(3, 1, 1)
    side = max(each.shape[-1] for each in kinds) + 2
    lines = -(-count // columns) * len(kinds)
    grid = np.full((lines * side, min(count, columns) * side, 3), 255, dtype=np.uint8)
    for kind, images in enumerate(kinds):
        pixels = ((images[:count].cpu().float() * std + mean).clamp(0, 1) * 255).byte()
        own = images.shape[-1]
        for place in range(count):
            top, left = (place // columns * len(kinds) + kind) * side, (place % columns) * side
            grid[top : top + own, left : left + own] = pixels[place].permute(1, 2, 0).numpy()
    picture = Image.fromarray(grid)
    enlarge = max(1, 64 // side)
    return picture.resize((picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST)


def dry_run(recipe: Recipe, console: Console | None = None) -> dict[str, Any]:
    """Print the model, its parameter count, the first batch and the chance values; write the batch as a picture.

    A large batch is cut to its first `ROWS` rows: 32,768 pictures at once are not for the machine that has a look first.

    Returns:
        What was printed: parameters, losses at initialisation with their chance values, the picture's path.
    """
    console = console or Console()
    world = World()
    rows = min(recipe.settings.batch, ROWS)
    ready: Prepared = prepare(replace(recipe, settings=replace(recipe.settings, batch=rows, accumulate=1)), world)
    batch = ready.finish(ready.loader.batch(0))
    with torch.no_grad():
        losses = ready.method.train()(batch, world, Step())

    table = Table("part", "class", "parameters", title=f"{recipe.name} {recipe.preset}")
    for name, kind, count in parameter_table(ready.method):
        table.add_row(escape(name), kind, f"{count:,}")
    total = sum(parameter.numel() for parameter in ready.method.parameters())
    table.add_row("all", "", f"{total:,}", style="bold")
    learn = sum(parameter.numel() for parameter in ready.method.parameters() if parameter.requires_grad)
    if learn < total:  # twins, teachers, what is frozen
        table.add_row("of which learn", "", f"{learn:,}")
    console.print(table)

    cut = f" (of {rows:,} rows instead of {recipe.settings.batch:,})" if rows < recipe.settings.batch else ""
    terms = Table("loss", f"at initialisation{cut}", "chance", "formula")
    for name, term in losses.terms.items():
        chance = "" if term.chance is None else f"{term.chance:.4f}"
        terms.add_row(name, f"{float(term.value):.4f}", chance, term.formula)
    console.print(terms)

    if ready.started:
        console.print(f"from {recipe.init}: {ready.started}", highlight=False, markup=False)
    settings = recipe.settings
    epochs = settings.steps * settings.batch / len(ready.source)
    console.print(
        f"{len(ready.source):,} rows of {ready.source.name}@{ready.source.split}, {_known(ready.info)}"
        f"{settings.steps} steps of {settings.batch} = {epochs:.1f} epochs",
        highlight=False,
        markup=False,
    )
    folder = Path(recipe.out) if recipe.out else Path("runs")
    (folder.parent if recipe.out else folder).mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f"{folder.name}-batch.png") if recipe.out else folder / f"{recipe.name}-batch.png"
    picture_of_batch(batch, recipe.view).save(path)
    for place, caption in enumerate(batch.captions[:8]):
        console.print(f"  {place}: {caption}", highlight=False, markup=False)
    console.print(f"first batch: {path}", highlight=False, markup=False, soft_wrap=True)
    return {
        "parameters": total,
        "learning": learn,
        "losses": {
            name: {"value": float(t.value.detach()), "chance": t.chance, "formula": t.formula}
            for name, t in losses.terms.items()
        },
        "batch": str(path),
    }


def _known(info: DataInfo) -> str:
    """How many words there are, or classes that a probe reads off."""
    if info.vocabulary:
        return f"vocabulary {info.vocabulary}, "
    return f"{info.classes} classes, " if info.classes else ""
