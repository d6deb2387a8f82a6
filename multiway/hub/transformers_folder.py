"""Folders in the layout of the `transformers` library: config, weights, preprocessing and tokeniser, in and out.

What every converter shares. Which tensor is which is a converter's own matter.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer
from multiway.hub.file import WeightsError

__all__ = [
    "activation_of",
    "mlp_ratio",
    "open_folder",
    "read_config",
    "read_tensors",
    "read_tokenizer",
    "read_view",
    "resample_number",
    "stated_licence",
    "their_activation",
    "write_json",
    "write_tensors",
    "write_tokenizer",
    "write_view",
]

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as transformers stores them
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
        return Path(
            snapshot_download(source, allow_patterns=["*.json", "*.safetensors", "*pytorch_model.bin", "README.md"])
        )
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
        WeightsError: if there is none.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise WeightsError(f"{folder} has no config.json; expected a folder written by `save_pretrained`")
    return json.loads(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The folder's weights by name.

    Raises:
        WeightsError: if there are none.
    """
    safe, old = folder / "model.safetensors", folder / "pytorch_model.bin"
    if safe.is_file():
        return load_file(str(safe))
    if old.is_file():
        return dict(torch.load(old, map_location="cpu", weights_only=True))
    raise WeightsError(f"{folder} has neither model.safetensors nor pytorch_model.bin")


def read_view(folder: Path, default: ViewSpec, *, squeezes: bool = False, patch: int = 0) -> ViewSpec:
    """How the folder's `preprocessor_config.json` draws pictures; `default` for what it leaves open.

    Args:
        folder: in their layout.
        default: its size is the model's.
        squeezes: whether their processor squeezes pictures into the square also where one side alone is given.
        patch: pixels of a patch, for a model that sees pictures at any size of whole patches; 0 for the one size.

    Raises:
        WeightsError: if it draws pictures at another size than the model sees.
    """
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return default
    theirs: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if "crop_pct" in theirs:
        return _by_share(theirs, default)
    size: Any
    cut: Any
    size, cut = theirs.get("size", default.size), theirs.get("crop_size", default.size)
    # One side given, the aspect ratio is kept and the middle cut out; both given, it is not.
    given = "shortest_edge" not in size if isinstance(size, dict) else squeezes
    squash = given and not theirs.get("do_center_crop", False)
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    cut = cut.get("height") if isinstance(cut, dict) else cut
    if patch and squash and size % patch == 0:
        default = replace(default, size=size)
    elif patch and not squash and theirs.get("do_center_crop", True) and size >= cut and cut % patch == 0:
        default = replace(default, size=cut, shortest=size if size > cut else None)
        size = cut
    elif not squash and cut == default.size and size > cut:
        default, size = replace(default, crop="center", shortest=size), cut
    if size != default.size or (not squash and cut != default.size):
        raise WeightsError(
            f"{file} resizes to {size} and cuts {cut} for a model of {default.size}; only equal sizes are supported"
        )
    shortest = None if squash else default.shortest
    return _coloured(theirs, replace(default, crop="squash" if squash else "center", shortest=shortest))


def _by_share(theirs: dict[str, Any], default: ViewSpec) -> ViewSpec:
    """ConvNeXt's way: below 384 pixels a share of the shorter side is cut out, from there on pictures are squeezed."""
    size = theirs.get("size", default.size)
    size = size.get("shortest_edge", default.size) if isinstance(size, dict) else size
    small = size < 384
    view = replace(
        default,
        size=size,
        crop="center" if small else "squash",
        shortest=max(size, int(size / theirs["crop_pct"])) if small else None,
    )
    return _coloured(theirs, view)


def _coloured(theirs: dict[str, Any], view: ViewSpec) -> ViewSpec:
    return replace(
        view,
        mean=tuple(theirs.get("image_mean", view.mean)),
        std=tuple(theirs.get("image_std", view.std)),
        resample=_RESAMPLE[theirs.get("resample", resample_number(view))],  # type: ignore[arg-type]
    )


def resample_number(view: ViewSpec) -> int:
    """Pillow's number of the view's filter, as transformers stores it."""
    return next(number for number, name in _RESAMPLE.items() if name == view.resample)


def write_view(folder: Path, view: ViewSpec, processor: str = "") -> None:
    """The `preprocessor_config.json` by which theirs draws pictures as the view does.

    None of theirs fits a picture on a background: for a view that does (`crop="pad"`) the middle is cut out, which is the same of
    square pictures. `workflows/model_card.py` says so to whoever converts.

    Args:
        folder: in their layout.
        view: of the model.
        processor: their class; by default one for pictures alone that can do it.
    """
    side = {"height": view.size, "width": view.size}
    cut = view.crop != "squash"
    how: dict[str, Any] = {
        "size": {"shortest_edge": view.shortest or view.size} if cut else side,
        "do_center_crop": cut,
    }
    if cut:
        how["crop_size"] = side
    write_json(
        folder / "preprocessor_config.json",
        {"image_processor_type": processor or ("BitImageProcessor" if cut else "ViTImageProcessor"), **how,
         "do_convert_rgb": True, "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
         "image_mean": list(view.mean), "image_std": list(view.std), "resample": resample_number(view)},
    )  # fmt: skip


def read_tokenizer(folder: Path, context: int) -> Tokenizer | None:
    """The folder's `tokenizer.json`; None if there is none: embeddings of pictures, and of token ids, still work."""
    file = folder / "tokenizer.json"
    return Tokenizer.from_json(file.read_text(encoding="utf-8"), context) if file.is_file() else None


def write_tokenizer(folder: Path, processor: Processor) -> None:
    """The tokeniser as `PreTrainedTokenizerFast` reads it, if there is one."""
    tokenizer = processor.tokenizer
    if tokenizer is None:
        return
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    names = {f"{role}_token": tokenizer.backend.id_to_token(number) for role, number in tokenizer.special.items()}
    names["unk_token"] = names.pop("unknown_token", names["eos_token"])
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": tokenizer.context, **names},
    )


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
