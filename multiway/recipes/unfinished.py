"""A run's model as one of its checkpoints has it: for runs that are still training, or were killed, and for steps on the way.

`model.safetensors` is written when a run ends or is asked to stop. Before that, everything but the weights follows from the
recipe, as it does when the run is resumed; the weights are read from a checkpoint, whatever number of ranks wrote its parts.
Nothing is written.
"""

from __future__ import annotations

from pathlib import Path

from multiway.config import from_json
from multiway.engine.checkpoint import load_latest
from multiway.engine.checkpoint import read as read_checkpoint
from multiway.engine.retention import name_of
from multiway.engine.run import Run
from multiway.hub.file import WeightsError, assign
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.recipes import recipe_class
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import prepare
from multiway.world import World

__all__ = ["at_checkpoint", "newest", "recipe_of"]

_MODEL = "model."  # how a checkpoint's names of the method's tensors begin (`engine/state.py`)


def recipe_of(run: Run) -> Recipe:
    """The recipe that a run is trained by, as its config.json has it.

    Raises:
        ConfigError: if this version has no such recipe, or it has other fields.
    """
    config = {key: each for key, each in run.config.items() if key not in ("init_hash", "lent")}
    name = config.pop("recipe")
    return from_json(recipe_class(name), config)


def newest(source: str, device: str = "cpu", precision: str = "fp32") -> tuple[Model, str]:
    """What `hub.load.load` gives, but of a run folder whose newest checkpoint is younger than its weights file, that checkpoint.

    Returns:
        The model, and what must be said of it; empty where there is nothing to say.

    Raises:
        WeightsError: if there is no model.
        CheckpointError: if every checkpoint is damaged.
    """
    folder = Path(source)
    if not (folder / "config.json").is_file():
        return load(source, device, precision), ""
    run = Run.read(folder)
    saved = max((each.stat().st_mtime for each in run.checkpoints.glob("step-*/manifest.json")), default=0.0)
    if not saved or (run.model_file.is_file() and run.model_file.stat().st_mtime >= saved):
        return load(source, device, precision), ""
    model, step = at_checkpoint(run)
    model.method.to(device)
    model.precision = precision
    return model, f"{folder} has not finished; this is its checkpoint at step {step}"


def at_checkpoint(run: Run, step: int | None = None) -> tuple[Model, int]:
    """The model of a run after a step, and the step.

    Args:
        step: that has a checkpoint; None for the newest one that is whole.

    Raises:
        WeightsError: if there is no checkpoint, or none of this step.
        CheckpointError: if it is damaged, or every one is.
    """
    there = run.steps
    if not there or (step is not None and step not in there):
        have = f"there are: {', '.join(map(str, there))}" if there else "it has none yet"
        raise WeightsError(f"{run.path} has no checkpoint{'' if step is None else f' of step {step}'}; {have}")
    if step is None:
        found = load_latest(run.checkpoints)
        assert found is not None
        path, step, read = found.path, found.step, found.tensors
    else:
        path = run.checkpoints / name_of(step)
        read, _ = read_checkpoint(path)
    ready = prepare(recipe_of(run), World())
    tensors = {name.removeprefix(_MODEL): each for name, each in read.items() if name.startswith(_MODEL)}
    assign(ready.method, tensors, str(path))
    return ready.model(), step
