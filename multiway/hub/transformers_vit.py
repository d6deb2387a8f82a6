"""ViT checkpoints of the `transformers` library (`ViTModel`, `ViTForImageClassification`), in and out: those of ViT and of DINO.

A classifier and the pooler, a linear map and tanh on the class token, are heads: they are left behind, and it is said so. What is
measured is the class token after the last norm, which DINO's release measures too.

Their processors squeeze pictures into the square, also where one side alone is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from multiway.batch import ViewSpec
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table
from multiway.hub.vit_folders import Family, hidden_of, read_encoder, tensors_of, tower_of, vit_of, write_encoder
from multiway.hub.vit_tensors import Names, blocks_of, grid_sides, older, require_plain, stripped, their_blocks, tower
from multiway.methods.picture_encoder import PictureEncoderConfig
from multiway.nn.vit import VisionConfig

__all__ = ["from_transformers", "names", "table", "to_transformers", "vit_config"]

KINDS = ("ViTModel", "ViTForImageClassification")
_NAMES = Names()


def table(config: PictureEncoderConfig) -> Table:
    """Which tensors are which."""
    apart = [(r"^pooler\.", "a linear map and tanh on the class token"), (r"^classifier\.", "a classifier")]
    return Table(KINDS[0], tower(vit_of(config), _NAMES), apart=apart)


def names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, of a folder or of a model in memory, by the names of the table."""
    return stripped(older(theirs, _NAMES), "vit")


def vit_config(theirs: Mapping[str, Any]) -> PictureEncoderConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (ViT-B/16).

    Raises:
        WeightsError: for what has no counterpart here.
    """
    require_plain(theirs, "ViT")
    blocks = blocks_of(theirs, theirs.get("intermediate_size", 3072), 1e-12)
    return PictureEncoderConfig(VisionConfig(**grid_sides(theirs, 224, 16), **blocks))


_FAMILY = Family(
    {"vit": KINDS},
    vit_config,
    table,
    names,
    ViewSpec(crop="squash", mean=(0.5,) * 3, std=(0.5,) * 3, resample="bilinear"),
    squeezes=True,
)


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A picture encoder from a folder in `transformers` layout, or by its name on the hub (`facebook/dino-vits16`).

    Raises:
        WeightsError: if a file is missing, the class is another, or a tensor is unaccounted for.
    """
    return read_encoder(source, _FAMILY, allow)


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `ViTModel.from_pretrained(folder, add_pooling_layer=False)` reads.

    Args:
        model: any whose pictures go through a plain ViT alone; heads, twins and probes are left behind.
        folder: is made.

    Raises:
        WeightsError: if the ViT has what a `ViTModel` has not.
    """
    encoder = tower_of(model, "ViTModel", layer_scale=False)
    config = encoder.config
    if config.activation == "swiglu":
        raise WeightsError("a ViTModel has no gated feed-forward part; this model has SwiGLU")
    own = {"model_type": "vit", "architectures": [KINDS[0]], "qkv_bias": True, "intermediate_size": hidden_of(config)}
    theirs = table(PictureEncoderConfig(config)).write(tensors_of(encoder))
    write_encoder(folder, theirs, own | their_blocks(config), model.processor.view)
