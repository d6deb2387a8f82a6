"""`multiway convert SRC DST`: weights between multiway's one file and the layouts of other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from multiway.hub.file import WeightsError, write_model
from multiway.hub.layouts import to_open_clip, to_transformers
from multiway.hub.load import load
from multiway.workflows.model_card import caveats, settings_of, write_card

__all__ = ["Convert", "run"]


@dataclass(frozen=True)
class Convert:
    """Convert weights, and say what became of every tensor.

    Attributes:
        source: run folder, `model.safetensors`, `hf:` followed by a name or folder (transformers, timm, open_clip), or a checkpoint file
            as its authors' code writes it.
        target: `NAME.safetensors` for multiway's own file, any other name for a folder.
        layout: of the folder.
        allow: regular expressions; a tensor of the source in whose name one is found may be left over, a tensor of ours may start at
            random. Everything else that does not fit is an error.
        size: pixels of the pictures that the model is to see, if others than now; positions are interpolated.
    """

    source: Annotated[str, tyro.conf.Positional]
    target: Annotated[str, tyro.conf.Positional]
    layout: Literal["transformers", "open_clip", "multiway"] | None = None
    allow: tuple[str, ...] = ()
    size: int | None = None


def run(args: list[str]) -> int:
    """Convert; says what was read, and what was written."""
    asked = tyro.cli(Convert, args=args, prog="multiway convert")
    target, file = Path(asked.target), asked.target.endswith(".safetensors")
    layout = asked.layout or ("multiway" if file else "transformers")
    if file != (layout == "multiway"):
        raise WeightsError(
            f"--layout {layout} writes {'one file' if layout == 'multiway' else 'a folder'}, and {target} "
            f"{'does not end' if layout == 'multiway' else 'ends'} in .safetensors; name another target"
        )
    if not file and target.is_dir() and any(target.iterdir()):
        # A run has a config.json and a model.safetensors too: they would be written over.
        raise WeightsError(f"the folder {target} is not empty; name a new one, or a file that ends in .safetensors")
    model = load(asked.source, allow=asked.allow, size=asked.size)
    target.parent.mkdir(parents=True, exist_ok=True)
    if layout == "multiway":
        write_model(target, model.method, model.processor, model.origin)
    elif layout == "open_clip":
        to_open_clip(model, target)
    else:
        to_transformers(model, target)
    card = write_card(target, model, layout, asked.source)
    if model.report is not None:
        print(model.report)
    print(f"  {settings_of(model)}")
    for caveat in caveats(model, layout):
        print(f"  note: {caveat}")
    count = len(model.method.state_dict())
    print(
        f"{asked.source} -> {asked.target}: {count} tensors, every one accounted for; {card.name} says how to load it"
    )
    return 0
