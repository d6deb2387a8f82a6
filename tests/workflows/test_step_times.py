"""Steps timed by turns: what is timed is a whole training step, and every recipe has its turn in each round."""

from dataclasses import replace

import pytest
import torch

from multiway.recipes.command import parse
from multiway.recipes.training import prepare
from multiway.workflows import step_times
from multiway.world import World

DATA = "scenes:easy,objects=1-3,samples=64"


def small(*args: str) -> step_times.Recipe:
    return parse([*args, "--data", DATA, "--batch", "8", "--tokenizer.vocabulary", "300"])


def test_a_whole_step_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters move as by one step of the loop, and the twin, which moves after the step, moves too."""
    recipe = small("albef", "--precision", "fp32")
    ready = prepare(recipe, World())
    monkeypatch.setattr(step_times, "prepare", lambda *args: ready)
    before = {name: tensor.clone() for name, tensor in ready.method.state_dict().items()}
    step_times.whole_step(recipe)()
    after = ready.method.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("student") for name in moved) and any(name.startswith("twin") for name in moved)
    assert all(parameter.grad is None for parameter in ready.method.parameters())


def test_all_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    monkeypatch.setattr(step_times, "whole_step", lambda recipe: lambda: turns.append(recipe.settings.batch))
    recipes = {"a": small("clip"), "b": replace(small("clip"), settings=replace(small("clip").settings, batch=16))}
    found = step_times.step_times(recipes, rounds=3)
    assert turns == [8, 16] * 4  # the first round is not counted
    assert set(found) == {"a", "b"} and all(value >= 0 for value in found.values())
    with pytest.raises(ValueError, match="at least 1"):
        step_times.step_times(recipes, rounds=0)
