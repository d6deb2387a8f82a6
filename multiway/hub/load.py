"""`multiway.load`: a model from a run folder, a weights file or a checkpoint of another library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from multiway.hub.file import WeightsError, is_ours, read_model
from multiway.hub.model import Model
from multiway.hub.sources import Sources, by_part, require_one
from multiway.methods.kept import merged

__all__ = ["load", "load_sources"]


def load(
    source: str | Path,
    device: str = "cpu",
    precision: str = "fp32",
    *,
    allow: Sequence[str] = (),
    size: int | None = None,
) -> Model:
    """Open a trained model.

    Args:
        source: a run folder or its `model.safetensors`; a folder of `multiway export`, whose graphs are then run by onnxruntime, or its
            `int8`; `hf:` followed by a name on the hub or a folder, in the layout of
            `transformers`, `timm` or `open_clip`; or a checkpoint file as its authors' code writes it (docs/weights.md lists them).
        device: `cpu`, `cuda`, ...
        precision: `fp32` or `bf16` autocast.
        allow: regular expressions; a tensor of another library's checkpoint in whose name one is found may be left over, a tensor of
            ours may start at random.
        size: pixels of the pictures that the model is to see; positions are interpolated.

    Returns:
        The model, in evaluation mode; changes of low rank are in its weights. Of another library's checkpoint its `report` says what
        became of every tensor.

    Raises:
        WeightsError: if there is no model, it cannot be read, or the precision is none.
    """
    if precision not in ("fp32", "bf16"):
        raise WeightsError(f"there is no precision {precision!r}; expected fp32 or bf16")
    text = str(source)
    if text.startswith("hf:"):
        from multiway.hub.layouts import open_foreign

        model = open_foreign(text[3:], allow)
    else:
        path = Path(source)
        if exported_folder(path) is not None:
            from multiway.hub.exported import open_exported

            if size is not None:
                raise WeightsError(f"{path} holds graphs for pictures of one size; export again with --size {size}")
            return open_exported(*exported_folder(path))  # type: ignore[misc]
        file = path / "model.safetensors" if path.is_dir() else path
        require_one(text)
        if not file.is_file():
            remedy = (
                "the run has not written its weights yet; let it finish or stop it with Ctrl-C"
                if path.is_dir()
                else "check the path"
            )
            raise WeightsError(f"{file} does not exist; {remedy}")
        model = _own_or_released(file, allow)
    if size is not None:
        from multiway.hub.resize import resized

        model = resized(model, size)
    merged(model.method)
    model.method.to(torch.device(device))
    model.precision = precision
    return model


def _own_or_released(file: Path, allow: Sequence[str]) -> Model:
    """Our own file, or somebody's checkpoint."""
    if file.suffix == ".safetensors" and is_ours(file):
        if allow:
            raise WeightsError(
                f"{file} is complete, and every tensor of it is taken; --allow is for other libraries' checkpoints"
            )
        return read_model(file)
    if file.suffix == ".safetensors" and (file.parent / "config.json").is_file():
        raise WeightsError(f"{file} is a part of a folder; load the folder: hf:{file.parent}")
    from multiway.hub.layouts import from_file

    return from_file(file, allow)


def load_sources(init: str) -> Sources:
    """The models that `--init` names, each opened once.

    Raises:
        WeightsError: as of `load` and `by_part`.
    """
    named = by_part(init) or {"": init}
    opened = {source: load(source) for source in dict.fromkeys(named.values())}
    return Sources(init, {part: opened[source] for part, source in named.items()})


def exported_folder(path: Path) -> tuple[Path, str] | None:
    """(folder, variant) that a path means: `FOLDER`, its fp32, or `FOLDER/int8`; None where nothing was exported."""
    if (path / "export.json").is_file():
        return path, "fp32"
    return (path.parent, path.name) if path.is_dir() and (path.parent / "export.json").is_file() else None
