"""Files of tensors as other people's training writes them: `.pth`, `.pt`, `.bin`, `.ckpt`, `.tar`, `.safetensors`.

Nothing in them is run: they are opened by `torch.load(weights_only=True)`, to which one class is named, `argparse.Namespace`, in which
many releases keep their command line, and which is a plain record. Beside the weights there may be an optimiser's state, an epoch and
so on, which is left.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from multiway.hub.file import WeightsError

__all__ = ["read_checkpoint"]

_ENTRIES = ("state_dict", "model", "model_state_dict")  # where a checkpoint keeps its weights
_PAIRS = ("student", "teacher", "dino_loss")  # or two networks, and a loss with a centre
_OBJECT = re.compile(
    r"(?:GLOBAL|Unsupported (?:global|class):?(?: GLOBAL)?) ([\w.]+)"
)  # as torch names what it refuses
_WRAPPER = "module."  # of `DistributedDataParallel`


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name, without what wrappers put before.

    Of DINO's whole checkpoints, which hold two networks, names begin with `student.` and `teacher.`.

    Raises:
        WeightsError: if it cannot be read as tensors, or holds none.
    """
    if not file.is_file():
        raise WeightsError(f"{file} does not exist; expected a checkpoint, .pth or .safetensors")
    try:
        if file.suffix == ".safetensors":
            held: Any = load_file(str(file))
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):
                held = torch.load(file, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{file} cannot be read as tensors alone: {_reason(error)}; where it holds more and you trust it, take its state dict out once "
            "and save that as .safetensors"
        ) from error
    if not isinstance(held, Mapping):
        raise WeightsError(f"{file} holds a {type(held).__name__}; expected a table of tensors by name")
    if set(_PAIRS[:2]) <= set(held):
        found = {f"{part}.{name}": each for part in _PAIRS for name, each in _unwrapped(held.get(part, {})).items()}
    else:
        name = next((name for name in _ENTRIES if isinstance(held.get(name), Mapping)), None)
        found = _unwrapped(held if name is None else held[name])
    odd = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if odd or not found:
        raise WeightsError(
            f"{file} holds {'more than tensors: ' + ', '.join(odd[:8]) if odd else 'no tensor'}; expected a state dict, by itself or "
            f"as the entry {' or '.join(_ENTRIES)}"
        )
    return found


def _reason(error: Exception) -> str:
    """In one line, without torch's advice to unpickle."""
    if found := _OBJECT.search(str(error)):
        return f"it holds {found[1]}, an object that code would have to be run for"
    if isinstance(error, pickle.UnpicklingError | KeyError | EOFError):
        return "it is damaged, or a pickle of something else than tensors"
    return str(error).partition(". ")[0][:200]


def _unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    wrapped = bool(state) and all(str(name).startswith(_WRAPPER) for name in state)
    return {str(name).removeprefix(_WRAPPER) if wrapped else str(name): each for name, each in state.items()}
