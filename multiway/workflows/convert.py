"""`mw.convert` and `multiway convert`: weights between multiway's one file and the layouts of other libraries, each with its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from multiway.hub.file import WeightsError, write_model
from multiway.hub.layouts import WRITERS, to_open_clip, to_torchscale, to_transformers
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.workflows.model_card import write_card

__all__ = ["Converted", "Layout", "convert"]

Layout = Literal["transformers", "open_clip", "torchscale", "multiway"]
_FILES = ("multiway", "torchscale")  # layouts of one file; the others are folders


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
    kind: str | None = None,
    allow: Sequence[str] = (),
    size: int | None = None,
) -> Converted:
    """Write a model in a layout, and a card that says what it is, whose it was and under which licence, and how it is loaded.

    Args:
        source: a model, or what `mw.load` opens.
        target: `NAME.safetensors` for one file, any other name for a folder.
        layout: by default multiway's own of a file, `transformers` of a folder.
        kind: class of `transformers`, where a model can be several (`BlipForImageTextRetrieval`); by default the first that it has
            weights for.
        allow, size: as of `mw.load`.

    Raises:
        WeightsError: if target and layout do not go together, the target is in use, or the model has no such counterpart.
    """
    path, file = Path(target), str(target).endswith(".safetensors")
    chosen: Layout = layout or ("multiway" if file else "transformers")
    if chosen not in WRITERS:
        raise WeightsError(f"there is no layout {layout!r}; expected one of {', '.join(WRITERS)}")
    if kind is not None and chosen != "transformers":
        raise WeightsError(f"{kind} is a class of transformers, and --layout {chosen} has none; leave --kind away")
    if file != (chosen in _FILES):
        raise WeightsError(
            f"--layout {chosen} writes {'one file' if chosen in _FILES else 'a folder'}, and {path} "
            f"{'ends' if file else 'does not end'} in .safetensors; name another target"
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
    elif chosen == "torchscale":
        to_torchscale(model, path)
    else:
        to_transformers(model, path, kind)
    named = model.name if isinstance(source, Model) else str(source)
    return Converted(path, chosen, write_card(path, model, chosen, named), model)
