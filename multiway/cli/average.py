"""`multiway average BEFORE AFTER --alpha 0.5 --out between.safetensors` (WiSE-FT)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multiway.hub.average import average
from multiway.hub.file import write_model
from multiway.hub.load import load

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
    mixed = average(load(asked.before), load(asked.after), asked.alpha)
    target = Path(asked.out)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_model(target, mixed.method, mixed.processor, mixed.origin)
    print(f"{1 - asked.alpha:.0%} of {asked.before} and {asked.alpha:.0%} of {asked.after} -> {target}")
    return 0
