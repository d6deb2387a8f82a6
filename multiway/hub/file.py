"""A model in one safetensors file: weights, and in the header the method's name, its config and its processor.

The file is complete: no second file to lose, no default to guess. Any safetensors reader can open it. Every tensor is
accounted for when it is read; a surplus or a missing one is an error that names it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multiway.data.processor import Processor
from multiway.hub.model import Model
from multiway.methods import method_class
from multiway.methods.method import Method

__all__ = ["FORMAT", "WeightsError", "assign", "read_model", "write_model"]

FORMAT = "multiway-1"
_HEADER = ("method", "config", "processor")


class WeightsError(ValueError):
    """Weights that cannot be read or do not fit."""


def write_model(path: Path, method: Method, processor: Processor) -> None:
    """Write a complete model file: aside first, then renamed, so that a reader never sees half of one."""
    # Tied parameters share storage, which safetensors refuses; each name gets a tensor of its own.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in method.state_dict().items()}
    header = {
        "format": FORMAT,
        "method": method.name,
        "config": json.dumps(method.config_json()),
        "processor": json.dumps(processor.to_header()),
    }
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, str(aside), metadata=header)
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"could not write {path}: {error}; free some space or choose another place") from error
    finally:  # also when interrupted
        if aside.exists():
            aside.unlink()


def read_model(path: Path) -> Model:
    """A model from a file that `write_model` wrote.

    Raises:
        WeightsError: if the file is damaged, foreign, or its tensors do not fit its config.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error
    if header.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is a safetensors file, but its header is not multiway's (format {header.get('format')!r}, "
            f"expected {FORMAT!r}); convert it first with `multiway convert`"
        )
    try:
        cls = method_class(header["method"])
        method = cls.from_config_json(json.loads(header["config"]))
        processor = Processor.from_header(json.loads(header["processor"]))
    except (KeyError, TypeError, ValueError) as error:  # ConfigError, DataError and damaged JSON are ValueErrors
        what = f"it lacks {error}" if isinstance(error, KeyError) and error.args[0] in _HEADER else str(error)
        raise WeightsError(
            f"the header of {path} does not describe a model of this version ({what}); write it again with the version "
            "that trained it, or install that one"
        ) from error
    assign(method, tensors, str(path))
    return Model(method, processor)


def assign(method: Method, tensors: dict[str, Tensor], source: str) -> None:
    """Copy tensors into a method; every one of them must fit.

    Raises:
        WeightsError: naming the tensors that are missing, left over or of another shape.
    """
    own = method.state_dict()
    missing = sorted(set(own) - set(tensors))
    surplus = sorted(set(tensors) - set(own))
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(tensors))
        if own[name].shape != tensors[name].shape
    ]
    if missing or surplus or shapes:
        lines = [f"{what}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" for what, names in
                 (("missing", missing), ("left over", surplus), ("other shapes", shapes)) if names]  # fmt: skip
        raise WeightsError(f"the tensors of {source} do not fit {type(method).__name__}; " + "; ".join(lines))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
