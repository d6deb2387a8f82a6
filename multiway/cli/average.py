"""`multiway average BEFORE AFTER --alpha 0.5 --out between.safetensors` (WiSE-FT)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multiway.hub.average import average
from multiway.hub.file import WeightsError, write_model
from multiway.hub.load import load
from multiway.workflows.model_card import write_card

__all__ = ["Average", "run"]


@dataclass(frozen=True)
class Average:
    """Average the weights of a run and of what was tuned from it.

    Attributes:
        before: what fine-tuning began from: a run folder, a file, or `hf:` name.
        after: what it ended with.
        out: file to write.
        alpha: share of the second: 0 is all of the first, 1 all of the second.
    """

    before: Annotated[str, tyro.conf.Positional]
    after: Annotated[str, tyro.conf.Positional]
    out: str = "average.safetensors"
    alpha: float = 0.5


def run(args: list[str]) -> int:
    """Average and write; says what was written."""
    asked = tyro.cli(Average, args=args, prog="multiway average")
    target = Path(asked.out)
    if target.suffix != ".safetensors":
        raise WeightsError(f"--out {asked.out} is to be one file of weights; name it so that it ends in .safetensors")
    mixed = average(load(asked.before), load(asked.after), asked.alpha, (asked.before, asked.after))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_model(target, mixed.method, mixed.processor, mixed.origin)
    said = f"{1 - asked.alpha:.0%} of {asked.before} and {asked.alpha:.0%} of {asked.after}"
    card = write_card(target, mixed, "multiway", said)
    print(f"{said} -> {target}; {card.name} says whose weights and data are in it")
    return 0
