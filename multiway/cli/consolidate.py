"""`multiway consolidate RUN --step 400 --out weights.safetensors`: the parts of a checkpoint as one file of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multiway.engine.run import Run, RunError
from multiway.hub.file import WeightsError, write_model
from multiway.methods.kept import merged
from multiway.recipes.unfinished import at_checkpoint
from multiway.workflows.model_card import write_card

__all__ = ["Consolidate", "run"]


@dataclass(frozen=True)
class Consolidate:
    """Write the weights of a checkpoint, of however many ranks, as one complete file, as a run does when it ends.

    Attributes:
        source: run folder, or one of its checkpoints, RUN/checkpoints/step-00000400.
        step: of the checkpoint; 0 for the newest that is whole.
        out: file to write, ending in .safetensors.
    """

    source: Annotated[str, tyro.conf.Positional]
    step: int = 0
    out: str = "weights.safetensors"


def run(args: list[str]) -> int:
    """Gather and write; says what was written."""
    asked = tyro.cli(Consolidate, args=args, prog="multiway consolidate")
    folder, step = _place(Path(asked.source), asked.step)
    target = Path(asked.out)
    if target.suffix != ".safetensors":
        raise WeightsError(f"--out {asked.out} is to be one file of weights; name it so that it ends in .safetensors")
    model, found = at_checkpoint(Run.read(folder), step or None)
    target.parent.mkdir(parents=True, exist_ok=True)
    merged(model.method)
    write_model(target, model.method, model.processor, model.origin)
    card = write_card(target, model, "multiway", str(folder), found)
    size = target.stat().st_size
    print(
        f"{folder} at step {found} -> {target}: {len(model.method.state_dict())} tensors, {size / 2**20:,.1f} MiB; {card.name} says "
        "how to load it"
    )
    return 0


def _place(source: Path, step: int) -> tuple[Path, int]:
    """Run folder and step; of a checkpoint's own folder both are in its path."""
    _, named, number = source.name.partition("step-")
    if not (named and number.isdecimal() and source.parent.name == "checkpoints"):
        return source, step
    if step and step != int(number):
        raise RunError(f"{source} is the checkpoint of step {int(number)}, and --step says {step}; give one of the two")
    return source.parent.parent, int(number)
