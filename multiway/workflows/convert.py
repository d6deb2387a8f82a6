"""`mw.convert` and `multiway convert`: weights between multiway's one file and the layouts of other libraries, each with its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from multiway.hub.file import WeightsError, write_model
from multiway.hub.layouts import to_open_clip, to_transformers
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.workflows.model_card import write_card

__all__ = ["Converted", "Layout", "convert"]

Layout = Literal["transformers", "open_clip", "multiway"]


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        target: file or folder.
        layout: that it has.
        card: its model card, with the note on licences.
        model: that is in it; its `report` says what became of every tensor of another library's checkpoint.
    """

    target: Path
    layout: Layout
    card: Path
    model: Model


def convert(
    source: Model | str | Path,
    target: str | Path,
    layout: Layout | None = None,
    *,
    allow: Sequence[str] = (),
    size: int | None = None,
) -> Converted:
    """Write a model in a layout, and a card that says what it is, whose it was and under which licence, and how it is loaded.

    Args:
        source: a model, or what `mw.load` opens.
        target: `NAME.safetensors` for multiway's own file, any other name for a folder.
        layout: of the folder; by default `transformers`.
        allow, size: as of `mw.load`.

    Raises:
        WeightsError: if target and layout do not go together, the target is in use, or the model has no such counterpart.
    """
    path, file = Path(target), str(target).endswith(".safetensors")
    chosen: Layout = layout or ("multiway" if file else "transformers")
    if chosen not in ("transformers", "open_clip", "multiway"):
        raise WeightsError(f"there is no layout {layout!r}; expected transformers, open_clip or multiway")
    if file != (chosen == "multiway"):
        raise WeightsError(
            f"--layout {chosen} writes {'one file' if chosen == 'multiway' else 'a folder'}, and {path} "
            f"{'does not end' if chosen == 'multiway' else 'ends'} in .safetensors; name another target"
        )
    if not file and path.is_dir() and any(path.iterdir()):
        # A run has a config.json and a model.safetensors too: they would be written over.
        raise WeightsError(f"the folder {path} is not empty; name a new one, or a file that ends in .safetensors")
    if isinstance(source, Model):
        if allow or size is not None:
            raise WeightsError("allow and size are for what is still to be loaded; give them to mw.load")
        model = source
    else:
        model = load(source, allow=allow, size=size)
    path.parent.mkdir(parents=True, exist_ok=True)
    if chosen == "multiway":
        write_model(path, model.method, model.processor, model.origin)
    elif chosen == "open_clip":
        to_open_clip(model, path)
    else:
        to_transformers(model, path)
    named = model.name if isinstance(source, Model) else str(source)
    return Converted(path, chosen, write_card(path, model, chosen, named), model)
