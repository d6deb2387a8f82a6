"""DeiTs of the `transformers` library (`DeiTModel` and its classifiers), in and out.

Touvron et al., 2021, arXiv 2012.12877: a ViT with a second learned token, for distillation, with a position of its own. Here it is a
register whose position is in it already, the sum of the two; so that what is read is equal in everything but how that sum is kept. It
is written as that sum with a position of zeros. Classifiers and the pooler are left behind, and it is said so.
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
from multiway.hub.rules import Many, Rule
from multiway.hub.vit_folders import Family, hidden_of, read_encoder, tensors_of, tower_of, vit_of, write_encoder
from multiway.hub.vit_tensors import Names, blocks_of, grid_sides, older, require_plain, stripped, their_blocks, tower
from multiway.methods.picture_encoder import PictureEncoderConfig
from multiway.nn.vit import VisionConfig

__all__ = ["KINDS", "deit_config", "from_transformers", "names", "table", "to_transformers", "with_distillation"]

KINDS = ("DeiTModel", "DeiTForImageClassification", "DeiTForImageClassificationWithTeacher")


def with_distillation(ours: str, token: str, positions: str) -> Rule:
    """The token for distillation, and the table of positions with one for it.

    Args:
        ours: what ours begin with.
        token, positions: theirs.
    """

    def read(tensors: Many) -> Many:
        table = tensors[1][0]
        return [tensors[0][0] + table[1:2], table[0], table[2:]]

    def write(tensors: Many) -> Many:
        table = torch.cat([tensors[1][None], torch.zeros_like(tensors[1])[None], tensors[2]])
        return [tensors[0][None], table[None]]

    return Rule(
        tuple(f"{ours}{each}" for each in ("registers", "class_position", "positions")), (token, positions), read, write
    )


def table(config: PictureEncoderConfig) -> Table:
    """Which tensors are which."""
    both = with_distillation("backbone.", "embeddings.distillation_token", "embeddings.position_embeddings")
    rules = [both, *tower(vit_of(config), Names())]
    heads = [
        (r"^pooler\.", "a linear map and tanh on the class token"),
        (r"^(cls_|distillation_)?classifier\.", "a classifier"),
    ]
    return Table(KINDS[0], rules, apart=heads)


def names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, of a folder or of a model in memory, by the names of the table."""
    return stripped(older(theirs, Names()), "deit")


def deit_config(theirs: Mapping[str, Any]) -> PictureEncoderConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (DeiT-B).

    Raises:
        WeightsError: for what has no counterpart here.
    """
    require_plain(theirs, "DeiT")
    blocks = blocks_of(theirs, theirs.get("intermediate_size", 3072), 1e-12)
    return PictureEncoderConfig(VisionConfig(**grid_sides(theirs, 224, 16), **blocks, registers=1))


_FAMILY = Family(
    {"deit": KINDS},
    deit_config,
    table,
    names,
    ViewSpec(224, "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), shortest=256),
    squeezes=True,
    any_size=True,
)


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A picture encoder from a folder in `transformers` layout, or by its name on the hub.

    Raises:
        WeightsError: if a file is missing, the class is another, or a tensor is unaccounted for.
    """
    return read_encoder(source, _FAMILY, allow)


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `DeiTModel.from_pretrained(folder, add_pooling_layer=False)` reads.

    Raises:
        WeightsError: if the ViT has what a DeiT has not.
    """
    encoder = tower_of(model, KINDS[0], layer_scale=False, registers=True)
    config = encoder.config
    if config.registers != 1 or config.antialias or config.activation == "swiglu":
        raise WeightsError(
            f"a DeiT has one token beside the class token and no gate; this model has {config.registers} registers, "
            f"antialias={config.antialias} and {config.activation}"
        )
    own = {"model_type": "deit", "architectures": [KINDS[0]], "qkv_bias": True, "intermediate_size": hidden_of(config)}
    theirs = table(PictureEncoderConfig(config)).write(tensors_of(encoder))
    write_encoder(folder, theirs, own | their_blocks(config), model.processor.view)
