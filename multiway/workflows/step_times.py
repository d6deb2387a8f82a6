"""What a training step of each recipe takes, measured side by side.

Cells of a comparison are trained one after the other, or several at once, on a machine whose speed changes by the minute; what
they took says little. So their steps are timed afterwards, in one process, by turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from multiway.engine.device import choose_device, choose_precision
from multiway.engine.optim import build_optimiser
from multiway.methods.method import Step
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import prepare
from multiway.world import World

__all__ = ["LATE", "step_times", "whole_step"]

LATE = Step(index=1, epoch=1, progress=0.9)
"""Past every ramp and every wait: negatives are hard, twins are believed."""


def whole_step(recipe: Recipe) -> Callable[[], None]:
    """A training step of a recipe on one batch: forward, backward, clipping, optimiser, and what comes after it.

    Reading and augmenting pictures is not in it; it is the same for all, and in training it is done by others meanwhile.
    """
    ready = prepare(recipe, World())
    settings = recipe.settings
    device = choose_device(settings.device)
    method = ready.method.to(device).train()
    optimiser = build_optimiser(method, settings.optimiser, [*settings.optimiser.rules, *method.learning_rates()])
    for group in optimiser.param_groups:
        group["lr"] = settings.lr * group["factor"]
    batch = ready.finish(ready.loader.batch(0).to(device))
    bf16 = choose_precision(settings.precision, device) == "bf16"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            losses = method(batch, World(), LATE)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), settings.optimiser.clip or float("inf"), foreach=True)
        optimiser.step()
        method.after_step(LATE, losses.updates)
        optimiser.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def step_times(
    recipes: Mapping[str, Recipe], rounds: int = 7, say: Callable[[str], None] = lambda text: None
) -> dict[str, float]:
    """Milliseconds per pair of each recipe's training step: medians over rounds in which all take turns.

    Raises:
        ValueError: for fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; a median needs at least 1")
    steps = {name: whole_step(replace(recipe, out="", dry_run=False)) for name, recipe in recipes.items()}
    for step in steps.values():
        step()  # the first of each allocates
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for place in range(rounds):
        say(f"timing steps: round {place + 1} of {rounds}")
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            taken[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(each) / recipes[name].settings.batch for name, each in taken.items()}
