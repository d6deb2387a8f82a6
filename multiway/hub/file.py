"""A model in one safetensors file: weights, and in the header the method's name, its config and its processor.

The file is complete: no second file to lose, no default to guess. Any safetensors reader can open it. Every tensor is
accounted for when it is read; a surplus or a missing one is an error that names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multiway.data.processor import Processor
from multiway.hub.bounds import LARGEST_SIZE, Bounds, TooLarge, numbers_in, odd_sizes
from multiway.hub.format import FORMAT, FormatError, current
from multiway.hub.model import Model
from multiway.hub.origin import Origin
from multiway.methods import method_class
from multiway.methods.method import Method
from multiway.version import __version__

__all__ = ["FORMAT", "WeightsError", "assign", "is_ours", "read_model", "write_model"]

_HEADER = ("method", "config", "processor", "origin")
_LARGEST_PICTURE = 1 << 13  # side in pixels; a square of it has the 64 million pixels that `data.decode` takes at most


class WeightsError(ValueError):
    """Weights that cannot be read or do not fit."""


def write_model(path: Path, method: Method, processor: Processor, origin: Origin | None = None) -> None:
    """Write a complete model file: aside first, then renamed, so that a reader never sees half of one.

    Args:
        path: ends in `.safetensors`.
        method, processor: what is written.
        origin: where the weights come from, see `Model.origin`.
    """
    # Tied parameters share storage, which safetensors refuses; each name gets a tensor of its own.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in method.state_dict().items()}
    header = {
        "format": FORMAT,
        "method": method.name,
        "config": json.dumps(method.config_json()),
        "processor": json.dumps(processor.to_header()),
        "origin": json.dumps(origin or []),
        "version": __version__,
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

    The header may be anybody's: what it says is compared with the tensors before room is made for it (`hub/bounds.py`).

    Raises:
        WeightsError: if the file is damaged or foreign, its header describes no model, or its tensors do not fit its config.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error
    try:
        header = current(header)
    except FormatError as error:
        raise WeightsError(f"{path} is a safetensors file, but {error}") from error
    try:
        config, shown = (_parsed(header, name) for name in ("config", "processor"))
        method = _built(header["method"], config, [tuple(tensor.shape) for tensor in tensors.values()])
        processor = _processor(shown, config)
        origin = _origin(header)
    except _Undescribed as error:
        raise WeightsError(
            f"the header of {path} does not describe a model of this version ({error}); write it again with the version "
            "that trained it, or install that one"
        ) from error
    assign(method, tensors, str(path))
    return Model(method, processor, origin=origin)


def is_ours(path: Path) -> bool:
    """Whether a safetensors file claims to be ours; True also of one that cannot be read, of which `read_model` says why."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return (file.metadata() or {}).get("format", "").startswith("multiway")
    except (SafetensorError, OSError):
        return True


class _Undescribed(ValueError):
    """What is wrong with a header."""


def _json(header: Mapping[str, str], name: str) -> Any:
    if missing := [each for each in _HEADER if each not in header]:
        raise _Undescribed(f"it lacks {', '.join(map(repr, missing))}")
    try:
        return json.loads(header[name])
    except (ValueError, RecursionError) as error:
        raise _Undescribed(f"its {name} is not JSON: {error}") from error


def _origin(header: Mapping[str, str]) -> Origin:
    found = _json(header, "origin")
    if not isinstance(found, list) or not all(
        isinstance(each, dict) and all(isinstance(text, str) for text in (*each, *each.values())) for each in found
    ):
        raise _Undescribed("its origin is no list of where the weights come from (hub/origin.py)")
    return found


def _parsed(header: Mapping[str, str], name: str) -> dict[str, Any]:
    found = _json(header, name)
    if not isinstance(found, dict):
        raise _Undescribed(f"its {name} is a {type(found).__name__}; expected an object")
    return found


def _built(name: str, config: dict[str, Any], shapes: list[tuple[int, ...]]) -> Method:
    """The method, with random weights."""
    largest = max([LARGEST_SIZE, *(size for shape in shapes for size in shape)])
    for place, number in numbers_in(config, "config"):
        if isinstance(number, int) and abs(number) > largest:
            raise _Undescribed(f"{place} is {number:,}; no size in this file is above {largest:,}")
    try:
        cls = method_class(name)
        with Bounds(shapes):
            return cls.from_config_json(config)
    except TooLarge as error:
        raise _Undescribed(f"the model it describes is not the one in the file: {error}") from error
    except KeyError as error:
        raise _Undescribed(str(error.args[0]) if error.args else "KeyError") from error
    except ValueError as error:  # ConfigError among them: written for people
        raise _Undescribed(str(error)) from error
    except Exception as error:  # whatever sizes make of the code that they were not made for
        odd = odd_sizes(config)
        first = (str(error) or "no more is known").splitlines()[0]
        raise _Undescribed(
            f"its config cannot be built: {type(error).__name__}: {first:.200}{'; ' + odd if odd else ''}"
        ) from error


def _processor(header: dict[str, Any], config: dict[str, Any]) -> Processor:
    """Tokeniser and preprocessing, which have to be of this model."""
    try:
        processor = Processor.from_header(header)
    except (ValueError, RecursionError, OverflowError) as error:  # ConfigError and DataError among them
        raise _Undescribed(f"its processor: {error}") from error
    except KeyError as error:
        raise _Undescribed(f"its processor lacks {error}") from error
    except (TypeError, AttributeError) as error:
        raise _Undescribed(f"its processor is not made as one: {error}") from error
    view = processor.view
    if view.size > _LARGEST_PICTURE or view.kept > _LARGEST_PICTURE or (view.shortest or 0) > _LARGEST_PICTURE:
        raise _Undescribed(
            f"processor.view asks for pictures of {max(view.kept, view.shortest or 0):,} pixels a side; expected "
            f"at most {_LARGEST_PICTURE:,}"
        )
    if not all(each > 0 for each in view.std) or not all(abs(each) < 1e6 for each in (*view.mean, *view.std)):
        raise _Undescribed(
            f"processor.view normalises by mean {view.mean} and std {view.std}; expected numbers, std above 0"
        )
    if processor.tokenizer is not None:
        for name, given in (("vocabulary", len(processor.tokenizer)), ("context", processor.tokenizer.context)):
            there = [int(number) for place, number in numbers_in(config, "config") if place.endswith(f".{name}")]
            if there and 0 < max(there) < given:
                raise _Undescribed(f"its tokeniser has a {name} of {given:,}, its config one of {max(there):,}")
    return processor


def assign(method: Method, tensors: dict[str, Tensor], source: str) -> None:
    """Copy tensors into a method; every one of them must fit.

    Raises:
        WeightsError: naming the tensors that are missing, left over, of another shape or of another kind of number.
    """
    own = method.state_dict()
    missing = sorted(set(own) - set(tensors))
    surplus = sorted(set(tensors) - set(own))
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(tensors))
        if own[name].shape != tensors[name].shape
    ]
    kinds = [
        f"{name} {tensors[name].dtype} instead of {own[name].dtype}"
        for name in sorted(set(own) & set(tensors))
        if _kind(own[name]) != _kind(tensors[name])
    ]
    if missing or surplus or shapes or kinds:
        lines = [f"{what}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" for what, names in
                 (("missing", missing), ("left over", surplus), ("other shapes", shapes), ("other numbers", kinds)) if names]  # fmt: skip
        raise WeightsError(f"the tensors of {source} do not fit {type(method).__name__}; " + "; ".join(lines))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _kind(tensor: Tensor) -> tuple[bool, bool, bool]:
    """Precision may differ; whole numbers for fractions, or the reverse, are another tensor."""
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool
