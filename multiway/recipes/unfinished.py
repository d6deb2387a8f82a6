"""A run's model as its newest checkpoint has it: for runs that are still training, or were killed.

`model.safetensors` is written when a run ends or is asked to stop. Before that, everything but the weights follows from the
recipe, as it does when the run is resumed; the weights are read from the newest checkpoint that is whole. Nothing is written.
"""

from __future__ import annotations

from pathlib import Path

from multiway.config import from_json
from multiway.engine.checkpoint import load_latest
from multiway.engine.run import Run
from multiway.hub.file import assign
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.recipes import recipe_class
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import prepare
from multiway.world import World

__all__ = ["newest", "recipe_of"]

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
    found = load_latest(run.checkpoints)
    assert found is not None
    ready = prepare(recipe_of(run), World())
    tensors = {name.removeprefix(_MODEL): each for name, each in found.tensors.items() if name.startswith(_MODEL)}
    assign(ready.method, tensors, str(found.path))
    model = ready.model()
    model.method.to(device)
    model.precision = precision
    return model, f"{folder} has not finished; this is its checkpoint at step {found.step}"
