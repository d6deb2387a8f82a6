"""`multiway convert SRC DST`: weights between multiway's one file and the layouts of other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from multiway.workflows.convert import Layout, convert
from multiway.workflows.model_card import caveats, settings_of

__all__ = ["Convert", "run"]


@dataclass(frozen=True)
class Convert:
    """Convert weights, and say what became of every tensor.

    Attributes:
        source: run folder, `model.safetensors`, `hf:` followed by a name or folder (transformers, timm, open_clip), or a checkpoint file
            as its authors' code writes it.
        target: `NAME.safetensors` for one file, any other name for a folder.
        layout: by default multiway's own of a file, transformers' of a folder.
        kind: class of transformers that is written, where a model can be several, as BlipForImageTextRetrieval or ViltForMaskedLM; by
            default the first that it has weights for.
        allow: regular expressions; a tensor of the source in whose name one is found may be left over, a tensor of ours may start at
            random. Everything else that does not fit is an error.
        size: pixels of the pictures that the model is to see, if others than now; positions are interpolated.
    """

    source: Annotated[str, tyro.conf.Positional]
    target: Annotated[str, tyro.conf.Positional]
    layout: Layout | None = None
    kind: str | None = None
    allow: tuple[str, ...] = ()
    size: int | None = None


def run(args: list[str]) -> int:
    """Convert; says what was read, and what was written."""
    asked = tyro.cli(Convert, args=args, prog="multiway convert")
    done = convert(asked.source, asked.target, asked.layout, kind=asked.kind, allow=asked.allow, size=asked.size)
    if done.model.report is not None:
        print(done.model.report)
    print(f"  {settings_of(done.model)}")
    for caveat in caveats(done.model, done.layout):
        print(f"  note: {caveat}")
    count = len(done.model.method.state_dict())
    print(
        f"{asked.source} -> {asked.target}: {count} tensors, every one accounted for; {done.card.name} says how to load it"
    )
    return 0
