"""DINOv2 checkpoints of the `transformers` library (`Dinov2Model`, `Dinov2WithRegistersModel`), in and out.

Oquab et al., 2023, arXiv 2304.07193: a ViT with layer scale, of the giant size with SwiGLU; Darcet et al., 2024, arXiv 2309.16588: with
registers. The released ones have positions of 518 pixels and are measured at 224, which their processor says: positions are
interpolated then, with registers by averaging too, as theirs are.

A model here without layer scale, or without a token for hidden patches, is written with factors of 1 and a token of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table
from multiway.hub.rules import leading
from multiway.hub.vit_folders import Family, hidden_of, read_encoder, tensors_of, tower_of, vit_of, write_encoder
from multiway.hub.vit_tensors import Names, blocks_of, grid_sides, older, require_plain, stripped, their_blocks, tower
from multiway.methods.picture_encoder import PictureEncoderConfig
from multiway.nn.vit import VisionConfig

__all__ = ["dinov2_config", "from_transformers", "names", "ours_to_theirs", "table", "to_transformers"]

KINDS = {
    "dinov2": ("Dinov2Model", "Dinov2ForImageClassification"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"),
}
_MASK = "embeddings.mask_token"


def _names(config: VisionConfig) -> Names:
    gated = config.activation == "swiglu"
    return Names(
        norms=("norm1", "norm2"),
        mlp=("mlp.weights_in", "mlp.weights_out") if gated else ("mlp.fc1", "mlp.fc2"),
        scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
        newer=((r"\.mlp\.down_proj\.", ".mlp.weights_out."),),
    )


def _gates_joined(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gate and what it lets through in one tensor, as folders have them; a model of transformers 5 keeps them apart."""
    found = dict(theirs)
    for name in theirs:
        if ".mlp.gate_proj." in name and (other := name.replace("gate_proj", "up_proj")) in found:
            found[name.replace("gate_proj", "weights_in")] = torch.cat([found.pop(name), found.pop(other)])
    return found


def table(config: PictureEncoderConfig) -> Table:
    """Which tensors are which."""
    rules = [*tower(vit_of(config), _names(vit_of(config))), *leading(("mask_token", _MASK), dims=1)]
    return Table("Dinov2Model", rules, apart=[(r"^classifier\.", "a classifier")])


def names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, of a folder or of a model in memory, by the names of the table."""
    joined = _gates_joined(theirs)
    return stripped(older(joined, _names(VisionConfig())), *KINDS)


def ours_to_theirs(model: Model) -> dict[str, Tensor]:
    """A model's encoder under the names of a `Dinov2Model` in a folder.

    Raises:
        WeightsError: as of `to_transformers`.
    """
    encoder = tower_of(model, "Dinov2Model", registers=True)
    config = encoder.config
    token = getattr(model.method, "mask_token", None)
    token = torch.zeros(config.width) if token is None else token.detach()
    theirs = table(PictureEncoderConfig(config)).write(tensors_of(encoder) | {"mask_token": token})
    if config.layer_scale is None:
        ones, scales = torch.ones(config.width), _names(config).scales
        theirs |= {f"encoder.layer.{layer}.{scale}": ones for layer in range(config.layers) for scale in scales}
    return theirs


def dinov2_config(theirs: Mapping[str, Any]) -> PictureEncoderConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (ViT-B/14, with registers B/16).

    Raises:
        WeightsError: for what has no counterpart here.
    """
    require_plain(theirs, "DINOv2")
    extra = theirs.get("model_type") == "dinov2_with_registers"
    hidden = int(theirs.get("hidden_size", 768) * theirs.get("mlp_ratio", 4))
    gated = theirs.get("use_swiglu_ffn", False)
    if gated:  # two thirds, to a whole multiple of eight: as many weights as without a gate
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
    blocks = blocks_of(theirs, hidden, 1e-6) | ({"activation": "swiglu"} if gated else {})
    image = VisionConfig(
        **grid_sides(theirs, 224, 16 if extra else 14),
        **blocks,
        layer_scale=float(theirs.get("layerscale_value", 1.0)),
        registers=theirs.get("num_register_tokens", 4) if extra else 0,
        antialias=extra,
    )
    return PictureEncoderConfig(image, covers=theirs.get("use_mask_token", True))


_FAMILY = Family(
    KINDS,
    dinov2_config,
    table,
    names,
    ViewSpec(crop="center", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resample="bicubic"),
    any_size=True,
)


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A picture encoder from a folder in `transformers` layout, or by its name on the hub (`facebook/dinov2-base`).

    Raises:
        WeightsError: if a file is missing, the class is another, or a tensor is unaccounted for.
    """
    return read_encoder(source, _FAMILY, allow)


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `Dinov2Model.from_pretrained` reads, or with registers `Dinov2WithRegistersModel.from_pretrained`.

    Args:
        model: any whose pictures go through such a ViT alone; heads, twins and probes are left behind.
        folder: is made.

    Raises:
        WeightsError: if the ViT has what DINOv2's has not.
    """
    theirs = ours_to_theirs(model)
    config = tower_of(model, "Dinov2Model", registers=True).config
    kind = "dinov2_with_registers" if config.registers else "dinov2"
    if config.antialias is not (config.registers > 0):
        raise WeightsError(
            f"transformers averages positions with registers and not without; this model has antialias={config.antialias} and "
            f"{config.registers} registers"
        )
    own = {"model_type": kind, "architectures": [KINDS[kind][0]], "qkv_bias": True, "mlp_ratio": _their_ratio(config),
           "use_swiglu_ffn": config.activation == "swiglu", "layerscale_value": 1.0 if config.layer_scale is None else config.layer_scale,
           **({"num_register_tokens": config.registers} if config.registers else {"use_mask_token": True})}  # fmt: skip
    blocks = their_blocks(config) | ({"hidden_act": "gelu"} if config.activation == "swiglu" else {})
    write_encoder(folder, theirs, blocks | own, model.processor.view)


def _their_ratio(config: VisionConfig) -> int:
    """Their whole-numbered ratio that gives the feed-forward part its width."""
    hidden = hidden_of(config)
    for ratio in range(1, 17):
        whole = config.width * ratio
        if hidden == ((int(whole * 2 / 3) + 7) // 8 * 8 if config.activation == "swiglu" else whole):
            return ratio
    raise WeightsError(
        f"a Dinov2Model has a feed-forward part of a whole multiple of its width; this one is {config.width} wide and has {hidden}"
    )
