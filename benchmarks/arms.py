"""Arms of an experiment: recipes that differ in a few fields, each trained once, evaluated, and kept.

A finished arm is a run folder; asked for again, it is not trained again. So a table grows over several starts, and two
processes may share it by taking different arms.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from multiway.recipes.recipe import Recipe
from multiway.recipes.training import run_recipe
from multiway.world import World

__all__ = ["last_evaluation", "train_arm"]


def train_arm(recipe: Recipe, folder: Path) -> list[dict[str, Any]]:
    """Train a recipe in a folder, if that is not done yet, and read its journal.

    Returns:
        The lines of metrics.jsonl.
    """
    if recipe.settings.threads:
        torch.set_num_threads(recipe.settings.threads)
    run_recipe(replace(recipe, out=str(folder)), World(), Console(quiet=True))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def last_evaluation(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Values of the last evaluation, by metric name without the data's."""
    found = [line["eval"] for line in lines if line.get("eval")]
    return {name.split("/", 1)[1]: metric["value"] for name, metric in found[-1].items()} if found else {}
