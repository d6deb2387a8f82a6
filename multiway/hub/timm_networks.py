"""State dicts of the `timm` library's ViT, ResNet, Swin and ConvNeXt: picture encoders.

Their names are those of the papers' own code, so that the same tables read DeiT's, DINO's and MAE's encoders, and torchvision's ResNets. Sizes are read off the shapes. No shape shows how wide heads are: 64 in released ViTs, but for
the widths in `_HEADS`, and 32 in Swins.

A folder of the hub says how its pictures are drawn (`config.json`, `pretrained_cfg`). A bare file does not: ImageNet's mean and deviation
then, 224 pixels out of 256, as the papers' code evaluates; ask for others where you know better (`Model.processor`). Classifiers are left
behind, and it is said so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill
from multiway.hub.timm_names import rules
from multiway.hub.transformers_folder import mlp_ratio, read_tensors
from multiway.methods.picture_encoder import PictureEncoder, PictureEncoderConfig
from multiway.nn.backbone import BackboneConfig
from multiway.nn.convnext import ConvNextConfig
from multiway.nn.resnet import ResNetConfig
from multiway.nn.swin import SwinConfig
from multiway.nn.vit import VisionConfig

__all__ = [
    "IMAGENET",
    "MARKS",
    "count",
    "encoder",
    "from_folder",
    "from_state",
    "network_of_shapes",
    "resnet_of_shapes",
    "vit_of_shapes",
]

IMAGENET = ViewSpec(224, "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), shortest=256)
_HEADS = {1280: 16, 1408: 16, 1664: 16, 1536: 24}  # of ViT-H, ViT-g, ViT-G, DINOv2's giant
_GONE = ("head.", "head_dist.", "fc.", "head.fc.", "pre_logits.", "fc_norm.")

MARKS: dict[str, tuple[str, ...]] = {
    "vit": ("cls_token", "pos_embed", "blocks.0.attn.qkv.weight"),
    "swin": ("layers.0.blocks.0.attn.relative_position_bias_table",),
    "convnext": ("stages.0.blocks.0.conv_dw.weight",),
    "resnet": ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"),
}
"""Tensors by which each is told."""


# Sizes, by shapes.


def count(theirs: Mapping[str, Tensor], beginning: str) -> int:
    """How many things are numbered after this beginning of names."""
    return len({name.removeprefix(beginning).split(".")[0] for name in theirs if name.startswith(beginning)})


def vit_of_shapes(theirs: Mapping[str, Tensor], root: str = "", **more: Any) -> VisionConfig:
    """A ViT's config.

    Args:
        theirs: a state dict.
        root: what its names begin with, a dot at the end.
        **more: fields that no shape shows.

    Raises:
        WeightsError: if a tensor that shows a size is not there, or positions are of no square.
    """
    try:
        width, _, patch, _ = theirs[f"{root}patch_embed.proj.weight"].shape
        places, hidden = theirs[f"{root}pos_embed"].shape[1], len(theirs[f"{root}blocks.0.mlp.fc1.weight"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a ViT?") from error
    distilled = f"{root}dist_token" in theirs
    side = math.isqrt(places - 1 - distilled)
    if side * side != places - 1 - distilled:
        raise WeightsError(f"{root}pos_embed has {places} positions, which are no class token and a square of patches")
    scale = theirs.get(f"{root}blocks.0.ls1.gamma")
    registers = theirs[f"{root}reg_token"].shape[1] if f"{root}reg_token" in theirs else int(distilled)
    found: dict[str, Any] = {
        "size": side * patch, "patch": patch, "width": width, "layers": count(theirs, f"{root}blocks."),
        "heads": _HEADS.get(width, max(1, width // 64)), "mlp_ratio": mlp_ratio(width, hidden), "registers": registers,
        "pre_norm": f"{root}norm_pre.weight" in theirs, "patch_bias": f"{root}patch_embed.proj.bias" in theirs,
        "layer_scale": None if scale is None else 1.0,
    }  # fmt: skip
    return VisionConfig(**found | more)


def resnet_of_shapes(theirs: Mapping[str, Tensor], root: str = "") -> ResNetConfig:
    """A ResNet's config; `root` is what its names begin with, a dot at the end."""
    stem = theirs[f"{root}conv1.weight"]
    stages = 4 if f"{root}layer4.0.conv1.weight" in theirs else 3
    return ResNetConfig(
        block="bottleneck" if f"{root}layer1.0.conv3.weight" in theirs else "basic",
        depths=tuple(count(theirs, f"{root}layer{stage + 1}.") for stage in range(stages)),
        base=len(stem),
        stem="imagenet" if stem.shape[-1] == 7 else "cifar",
    )


def _swin_of_shapes(theirs: Mapping[str, Tensor], size: int) -> SwinConfig:
    base, _, patch, _ = theirs["patch_embed.proj.weight"].shape
    displaced, heads = theirs["layers.0.blocks.0.attn.relative_position_bias_table"].shape
    return SwinConfig(
        size=size,
        patch=patch,
        base=base,
        depths=tuple(count(theirs, f"layers.{stage}.blocks.") for stage in range(count(theirs, "layers."))),
        head_width=base // heads,
        window=(math.isqrt(displaced) + 1) // 2,
        mlp_ratio=mlp_ratio(base, len(theirs["layers.0.blocks.0.mlp.fc1.weight"])),
    )


def _convnext_of_shapes(theirs: Mapping[str, Tensor]) -> ConvNextConfig:
    base, _, patch, _ = theirs["stem.0.weight"].shape
    return ConvNextConfig(
        patch=patch,
        base=base,
        depths=tuple(count(theirs, f"stages.{stage}.blocks.") for stage in range(count(theirs, "stages."))),
        kernel=theirs["stages.0.blocks.0.conv_dw.weight"].shape[-1],
        layer_scale=1e-6 if "stages.0.blocks.0.gamma" in theirs else None,
    )


def network_of_shapes(theirs: Mapping[str, Tensor], size: int = 224) -> BackboneConfig:
    """The network that a state dict is of; what no shape shows is as released.

    Args:
        theirs: by timm's names.
        size: pixels of its pictures, where nothing in it has a size.

    Raises:
        WeightsError: if it is none of the four.
    """
    made: dict[str, Callable[[], BackboneConfig]] = {
        "vit": lambda: vit_of_shapes(theirs),
        "swin": lambda: _swin_of_shapes(theirs, size),
        "convnext": lambda: _convnext_of_shapes(theirs),
        "resnet": lambda: resnet_of_shapes(theirs),
    }
    for kind, marks in MARKS.items():
        if all(mark in theirs for mark in marks):
            return made[kind]()
    raise WeightsError(
        f"these are no weights of timm's {', '.join(MARKS)}; they are named like {', '.join(list(theirs)[:4])}"
    )


# Models.


def encoder(
    theirs: Mapping[str, Tensor], config: BackboneConfig, source: str, view: ViewSpec, allow: Sequence[str] = ()
) -> Model:
    """A picture encoder from a network's tensors.

    Raises:
        WeightsError: if a tensor is unaccounted for.
    """
    method = PictureEncoder(PictureEncoderConfig(config))
    index = (r"(relative_position_index|attn_mask)$", "numbers and masks that follow from the window")
    gone = [each for each in _GONE if not (each == "head." and "head.norm.weight" in theirs)]
    table = Table(
        "network of timm", rules(config, "backbone.", distilled="dist_token" in theirs), empty=[index],
        apart=[(f"^({'|'.join(each.replace('.', chr(92) + '.') for each in gone)})", "a classifier")],
    )  # fmt: skip
    return Model(method, Processor(view, None), report=fill(method, table, theirs, source, allow))


def from_state(theirs: Mapping[str, Tensor], file: Path, allow: Sequence[str] = ()) -> Model:
    """A picture encoder from a bare state dict.

    Raises:
        WeightsError: if it is of no network here, or a tensor is unaccounted for.
    """
    config = network_of_shapes(theirs)
    return encoder(theirs, config, str(file), _view_of(config, {}), allow)


def from_folder(folder: Path, stated: Mapping[str, Any], allow: Sequence[str] = ()) -> Model:
    """A picture encoder from a folder as `timm` keeps it on the hub.

    Args:
        folder: with `model.safetensors` or `pytorch_model.bin`.
        stated: its `config.json`.
        allow: see `hub/accounting.py`.

    Raises:
        WeightsError: if there are no weights, they are of no network here, or a tensor is unaccounted for.
    """
    theirs, told = read_tensors(folder), stated.get("pretrained_cfg", {})
    config = network_of_shapes(theirs, told.get("input_size", (3, 224))[-1])
    return encoder(theirs, config, str(folder), _view_of(config, told), allow)


def _view_of(config: BackboneConfig, told: Mapping[str, Any]) -> ViewSpec:
    size = getattr(config, "size", None) or told.get("input_size", (3, 224))[-1]
    share = float(told.get("crop_pct", 0.875))
    squash = told.get("crop_mode") == "squash"
    return ViewSpec(
        size,
        "squash" if squash else "center",
        tuple(told.get("mean", IMAGENET.mean)),
        tuple(told.get("std", IMAGENET.std)),
        told.get("interpolation", "bicubic"),
        shortest=None if squash or share >= 1.0 else math.floor(size / share),
    )
