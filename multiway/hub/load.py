"""`multiway.load`: a model from a run folder, a weights file or a checkpoint of another library."""

from __future__ import annotations

from pathlib import Path

import torch

from multiway.hub.file import WeightsError, read_model
from multiway.hub.model import Model
from multiway.hub.sources import Sources, by_part, require_one
from multiway.methods.kept import merged

__all__ = ["load", "load_sources"]


def load(source: str | Path, device: str = "cpu", precision: str = "fp32") -> Model:
    """Open a trained model.

    Args:
        source: a run folder, a `model.safetensors`, or `hf:` followed by a name or folder in `transformers` layout
            (`hub/layouts.py` has the list of models), or a file of BEiT-3's release.
        device: `cpu`, `cuda`, ...
        precision: `fp32` or `bf16` autocast.

    Returns:
        The model, in evaluation mode; changes of low rank are in its weights.

    Raises:
        WeightsError: if there is no model, it cannot be read, or the precision is none.
    """
    if precision not in ("fp32", "bf16"):
        raise WeightsError(f"there is no precision {precision!r}; expected fp32 or bf16")
    text = str(source)
    if text.startswith("hf:"):
        from multiway.hub.layouts import from_transformers

        model = from_transformers(text[3:])
    else:
        path = Path(source)
        file = path / "model.safetensors" if path.is_dir() else path
        require_one(text)
        if not file.is_file():
            remedy = (
                "the run has not written its weights yet; let it finish or stop it with Ctrl-C"
                if path.is_dir()
                else "check the path"
            )
            raise WeightsError(f"{file} does not exist; {remedy}")
        model = read_model(file)
    merged(model.method)
    model.method.to(torch.device(device))
    model.precision = precision
    return model


def load_sources(init: str) -> Sources:
    """The models that `--init` names, each opened once.

    Raises:
        WeightsError: as of `load` and `by_part`.
    """
    named = by_part(init) or {"": init}
    opened = {source: load(source) for source in dict.fromkeys(named.values())}
    return Sources(init, {part: opened[source] for part, source in named.items()})
