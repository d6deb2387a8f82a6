"""`multiway convert SRC DST`: weights between multiway's one file and a folder in transformers' layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multiway.hub.file import WeightsError, write_model
from multiway.hub.layouts import to_transformers
from multiway.hub.load import load

__all__ = ["Convert", "run"]


@dataclass(frozen=True)
class Convert:
    """Convert weights.

    Attributes:
        source: run folder, `model.safetensors`, or `hf:` followed by a name or folder.
        target: `NAME.safetensors` for multiway's own file, any other name for a folder in transformers' layout.
    """

    source: Annotated[str, tyro.conf.Positional]
    target: Annotated[str, tyro.conf.Positional]


def run(args: list[str]) -> int:
    """Convert; says what was written."""
    asked = tyro.cli(Convert, args=args, prog="multiway convert")
    model = load(asked.source)
    target = Path(asked.target)
    if target.suffix == ".safetensors":
        target.parent.mkdir(parents=True, exist_ok=True)
        write_model(target, model.method, model.processor)
    else:
        if target.is_dir() and any(target.iterdir()):
            # A run has a config.json and a model.safetensors too: they would be written over.
            raise WeightsError(f"the folder {target} is not empty; name a new one, or a file that ends in .safetensors")
        to_transformers(model, target)
    count = len(model.method.state_dict())
    print(f"{asked.source} -> {asked.target}: {count} tensors, every one accounted for")
    return 0
