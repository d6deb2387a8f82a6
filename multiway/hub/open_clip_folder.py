"""Folders of the `open_clip` library, as it keeps them on the hub: what its CLIPs and CoCas share.

`open_clip_config.json` says how the model is built (`model_cfg`) and how pictures are drawn (`preprocess_cfg`); the weights have the
names of OpenAI's release. The tokeniser is CLIP's, which the library brings along and folders may lack: without a `tokenizer.json`
a model takes token ids, not strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.rules import Rule, both, same
from multiway.hub.tokenizer_files import write_tokenizer
from multiway.hub.transformers_folder import read_json, read_tensors, write_json

__all__ = ["CONFIG_FILE", "picture", "plain", "read_folder", "resblocks", "view_of", "write_folder"]

CONFIG_FILE = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what the config file says, tensors by name).

    Raises:
        WeightsError: if a file is missing, or cannot be read.
    """
    return read_json(folder / CONFIG_FILE), read_tensors(folder, _WEIGHTS)


def view_of(stated: Mapping[str, Any], size: int) -> ViewSpec:
    """How pictures of this size are drawn, by `preprocess_cfg`; what it leaves open is CLIP's own."""
    drawn = stated.get("preprocess_cfg", {})
    default = ViewSpec(size=size)
    return ViewSpec(
        size=size,
        crop="squash" if drawn.get("resize_mode") == "squash" else "center",
        mean=tuple(drawn.get("mean", default.mean)),
        std=tuple(drawn.get("std", default.std)),
        resample=drawn.get("interpolation", "bicubic"),
    )


def write_folder(folder: Path, theirs: Mapping[str, Tensor], config: dict[str, Any], processor: Processor) -> None:
    """Write what `open_clip.create_model("local-dir:FOLDER")` reads.

    Args:
        folder: is made.
        theirs: tensors by their names.
        config: `model_cfg`.
        processor: of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in theirs.items()}
    save_file(apart, str(folder / _WEIGHTS[0]), metadata={"format": "pt"})
    view = processor.view
    drawn = {
        "size": view.size, "mode": "RGB", "mean": list(view.mean), "std": list(view.std), "interpolation": view.resample,
        "resize_mode": "squash" if view.crop == "squash" else "shortest", "fill_color": 0,
    }  # fmt: skip
    write_json(folder / CONFIG_FILE, {"model_cfg": config, "preprocess_cfg": drawn})
    write_tokenizer(folder, processor)


def plain(theirs: Mapping[str, Any], expected: Mapping[str, Any], remedy: str) -> None:
    """Refuse settings that a model here cannot have.

    Args:
        theirs: a part of `model_cfg`.
        expected: setting -> the value that it has to have where it is given.
        remedy: what can be converted.

    Raises:
        WeightsError: naming the first that differs.
    """
    for name, value in expected.items():
        given = theirs.get(name, value)
        if given != value:
            raise WeightsError(
                f"{name} is {given!r}; of open_clip's models those with {value!r} can be converted: {remedy}"
            )


def resblocks(ours: str, theirs: str) -> list[Rule]:
    """The blocks of their transformers."""
    own, their = f"{ours}.blocks.*", f"{theirs}.resblocks.*"
    return [
        *same(*((f"{own}.attention.qkv.{each}", f"{their}.attn.in_proj_{each}") for each in ("weight", "bias"))),
        *both(
            (f"{own}.attention_norm", f"{their}.ln_1"),
            (f"{own}.attention.out", f"{their}.attn.out_proj"),
            (f"{own}.mlp_norm", f"{their}.ln_2"),
            (f"{own}.mlp.up", f"{their}.mlp.c_fc"),
            (f"{own}.mlp.down", f"{their}.mlp.c_proj"),
        ),
    ]


def picture(vision: Mapping[str, Any], activation: str) -> dict[str, Any]:
    """Fields of our `VisionConfig` from their `vision_cfg`, whose missing ones mean their defaults."""
    width = vision.get("width", 768)
    return {
        "size": vision.get("image_size", 224),
        "patch": vision.get("patch_size", 16),
        "width": width,
        "layers": vision.get("layers", 12),
        "heads": width // vision.get("head_width", 64),
        "mlp_ratio": float(vision.get("mlp_ratio", 4.0)),
        "activation": activation,
        "pool": "class",
        "pre_norm": True,
        "patch_bias": False,
        "epsilon": 1e-5,
    }
