"""Folders in the layout of the `transformers` library: config and weights, in and out.

What every converter shares. Which tensor is which is a converter's own matter; how pictures are drawn is in `transformers_view.py`, the
tokeniser in `tokenizer_files.py`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from multiway.hub.accounting import some
from multiway.hub.checkpoint_file import read_checkpoint
from multiway.hub.file import WeightsError

__all__ = [
    "activation_of",
    "mlp_ratio",
    "open_folder",
    "read_config",
    "read_json",
    "read_tensors",
    "stated_licence",
    "their_activation",
    "write_json",
    "write_tensors",
]

_FETCHED = ("*.json", "*.safetensors", "*pytorch_model*.bin", "vocab.txt", "merges.txt", "README.md")
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def open_folder(source: str) -> Path:
    """A folder, or the snapshot of a name on the hub (fetched by `huggingface_hub`).

    Raises:
        WeightsError: if it is neither.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=list(_FETCHED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(f"{source} is neither a folder here nor reachable on the hub: {error}") from error


def stated_licence(folder: Path) -> str:
    """The licence in the head of the folder's `README.md`; empty where none is stated."""
    card = folder / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace").split("---", 2) if card.is_file() else []
    found = (
        re.search(r"^license:\s*[\"']?([\w.+-]+)", head[1], re.M) if len(head) == 3 and not head[0].strip() else None
    )
    return found[1] if found and found[1] != "unknown" else ""


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        WeightsError: if there is none, or it cannot be read.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise WeightsError(f"{folder} has no config.json; expected a folder written by `save_pretrained`")
    return read_json(file)


def read_json(file: Path) -> dict[str, Any]:
    """An object of settings.

    Raises:
        WeightsError: if the file holds none.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file} is not JSON: {error!s:.200}; fetch the file anew") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{file} holds a {type(found).__name__}; expected settings by name")
    return found


def read_tensors(folder: Path, names: Sequence[str] = ("model.safetensors", "pytorch_model.bin")) -> dict[str, Tensor]:
    """The folder's weights by name, of one file or of the several that `NAME.index.json` lists.

    Args:
        folder: to look in.
        names: of files, the first that is there counts.

    Raises:
        WeightsError: if there are none, a part is missing, or something is no tensor.
    """
    for name in names:
        if (folder / name).is_file():
            return read_checkpoint(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_parts(folder, folder / f"{name}.index.json")
    raise WeightsError(f"{folder} has neither {' nor '.join(names)}")


def _read_parts(folder: Path, index: Path) -> dict[str, Tensor]:
    """Weights in several files, each named for its tensors."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(part, str) for part in places.values()):
        raise WeightsError(f"{index} has no `weight_map` of tensors to files; fetch the file anew")
    found: dict[str, Tensor] = {}
    for part in sorted(set(places.values())):
        if Path(part).name != part:
            raise WeightsError(f"{index} names the file {part!r}, which is none of its own folder")
        found |= read_checkpoint(folder / part)
    if lacking := sorted(set(places) - set(found)):
        raise WeightsError(f"the files of {index} lack {some(lacking, 4)}, which it lists; fetch the folder anew")
    return found


def write_tensors(folder: Path, theirs: dict[str, Tensor]) -> None:
    """Weights, each with memory of its own, which safetensors asks for."""
    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in theirs.items()}
    save_file(apart, str(folder / "model.safetensors"), metadata={"format": "pt"})


def write_json(file: Path, value: dict[str, Any]) -> None:
    """As `save_pretrained` lays JSON out."""
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def mlp_ratio(width: int, hidden: int) -> float:
    """The ratio by which a feed-forward part of this hidden width is made: their product is cut to a whole number, and the quotient may
    have been rounded down.
    """
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def activation_of(theirs: str) -> str:
    """Our name of an activation; an unknown one keeps its name, and is refused where it is used."""
    return _ACTIVATIONS.get(theirs, theirs)


def their_activation(ours: str) -> str:
    """Their name of an activation."""
    return "gelu_pytorch_tanh" if ours == "gelu_tanh" else ours
