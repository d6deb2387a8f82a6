"""BEiT checkpoints of the `transformers` library (`BeitModel`, `BeitForMaskedImageModeling`, `BeitForImageClassification`), in and out.

Bao et al., 2022, arXiv 2106.08254. Pre-trained, all blocks share one table of relative positions, tokens are normed at the end and a
head guesses the code of each patch (DALL-E's, which are not part of the folder); tuned, each block has a table of its own and the mean
over patches is normed. A classifier is a head and is left behind, and it is said so.

The vector of a picture is the mean over its patches, of pre-trained weights too: their class token was asked for nothing. At another
size the tables are interpolated as the release tunes them (`nn/displacements.py`); transformers stretches them evenly, so that there,
and only there, numbers differ.
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
from multiway.hub.rules import Rule, both, leading
from multiway.hub.vit_folders import Family, hidden_of, read_encoder, tensors_of, tower_of, vit_of, write_encoder
from multiway.hub.vit_tensors import Names, blocks_of, grid_sides, older, require_plain, stripped, their_blocks, tower
from multiway.methods.picture_encoder import PictureEncoderConfig
from multiway.nn.vit import VisionConfig

__all__ = ["beit_config", "from_transformers", "names", "ours_to_theirs", "table", "to_transformers"]

MASKED = "BeitForMaskedImageModeling"
KINDS = ("BeitModel", MASKED, "BeitForImageClassification")
_TABLE = "relative_position_bias.relative_position_bias_table"
_POOL, _MASK = "pooler.layernorm", "embeddings.mask_token"
_NAMES = Names(
    scales=("lambda_1", "lambda_2"),
    key_bias=False,
    newer=(
        *Names().newer,
        (r"(^|\.)shared_position_bias\.", r"\1encoder.relative_position_bias."),
        (r"(layer\.\d+)\.relative_position_bias\.", r"\1.attention.attention.relative_position_bias."),
    ),
)


def _tables(config: VisionConfig) -> list[str]:
    """Theirs, a name for each table."""
    if config.relative == "shared":
        return [f"encoder.{_TABLE}"]
    layers = config.layers if config.relative == "blocks" else 0
    return [f"encoder.layer.{layer}.attention.attention.{_TABLE}" for layer in range(layers)]


def table(config: PictureEncoderConfig) -> Table:
    """Which tensors are which."""
    image = vit_of(config)
    rules = [
        *tower(image, _NAMES),
        *both(("backbone.pool_norm", _POOL), ("code_head", "lm_head")),
        *leading(("mask_token", _MASK)),
    ]
    if tables := _tables(image):
        join = Rule(
            ("backbone.relative.table",),
            tuple(tables),
            lambda tensors: [torch.cat(list(tensors), 1)],
            lambda tensors: tensors[0].chunk(len(tables), 1),
        )
        rules.append(join)
    # Which number of the table a pair of patches has: older folders keep it.
    empty = [(r"relative_position_index$", "numbers of displacements, which follow from the grid")]
    return Table("BeitModel", rules, empty=empty, apart=[(r"^classifier\.", "a classifier")])


def names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, of a folder or of a model in memory, by the names of the table.

    In a class with a head on codes the last norm stands outside of the encoder.
    """
    return stripped(older(theirs, _NAMES), "beit")


def ours_to_theirs(model: Model) -> dict[str, Tensor]:
    """A model's encoder, and its head on codes if it has one, under the names of a folder.

    Raises:
        WeightsError: as of `to_transformers`.
    """
    encoder, head = tower_of(model, "BeitModel", beit=True), getattr(model.method, "code_head", None)
    own = tensors_of(encoder)
    token = getattr(model.method, "mask_token", None)
    if token is not None:
        own["mask_token"] = token.detach()
    if head is not None:
        own |= {f"code_head.{name}": tensor for name, tensor in head.state_dict().items()}
    theirs = table(PictureEncoderConfig(encoder.config)).write(own)
    outside = ("layernorm.", "lm_head.")
    return {name if head is None or name.startswith(outside) else f"beit.{name}": each for name, each in theirs.items()}


def beit_config(theirs: Mapping[str, Any]) -> PictureEncoderConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (ViT-B/16).

    Raises:
        WeightsError: for what has no counterpart here.
    """
    require_plain(theirs, "BEiT")
    masked = (theirs.get("architectures") or [KINDS[0]])[0] == MASKED
    mean, shared = theirs.get("use_mean_pooling", True), theirs.get("use_shared_relative_position_bias", False)
    own = theirs.get("use_relative_position_bias", False)
    covers = theirs.get("use_mask_token", False)
    if (masked and not (mean and covers)) or (shared and own):
        raise WeightsError(
            f"given use_mean_pooling={mean}, use_mask_token={covers}, use_shared_relative_position_bias={shared} and "
            f"use_relative_position_bias={own}; expected one of the last two at most, and of a {MASKED} the first two"
        )
    scale = theirs.get("layer_scale_init_value", 0.1)
    image = VisionConfig(
        **grid_sides(theirs, 224, 16),
        **blocks_of(theirs, theirs.get("intermediate_size", 3072), 1e-12),
        pool="mean" if mean else "class",
        class_token=True,
        positions="learned" if theirs.get("use_absolute_position_embeddings", False) else "none",
        layer_scale=float(scale) if scale > 0 else None,
        relative="shared" if shared else "blocks" if own else "none",
        pool_norm=mean and not masked,
    )
    return PictureEncoderConfig(image, covers, theirs.get("vocab_size", 8192) if masked else 0)


_FAMILY = Family(
    {"beit": KINDS},
    beit_config,
    table,
    names,
    ViewSpec(crop="squash", mean=(0.5,) * 3, std=(0.5,) * 3, resample="bilinear"),
    squeezes=True,
)


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A picture encoder from a folder in `transformers` layout, or by its name on the hub (`microsoft/beit-base-patch16-224-pt22k`).

    Raises:
        WeightsError: if a file is missing, the class is another, or a tensor is unaccounted for.
    """
    return read_encoder(source, _FAMILY, allow)


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `BeitModel.from_pretrained` reads, or `BeitForMaskedImageModeling.from_pretrained` if there is a head on codes.

    Args:
        model: any whose pictures go through such a ViT alone. Of a BEiT v2 trained here the tokeniser and the blocks that aggregate
            are left behind.
        folder: is made.

    Raises:
        WeightsError: if the ViT has what BEiT's has not.
    """
    theirs, head = ours_to_theirs(model), getattr(model.method, "code_head", None)
    config = tower_of(model, "BeitModel", beit=True).config
    if config.activation == "swiglu" or (head is None and (config.pool == "mean") is not config.pool_norm):
        raise WeightsError(
            "a BeitModel has no gate, and norms the mean over patches or every token, not a mean of normed tokens; given "
            f"activation={config.activation!r}, pool={config.pool!r}, pool_norm={config.pool_norm}"
        )
    own = {
        "model_type": "beit", "architectures": [KINDS[0] if head is None else MASKED], "intermediate_size": hidden_of(config),
        "use_mask_token": getattr(model.method, "mask_token", None) is not None,
        "use_absolute_position_embeddings": config.positions != "none",
        "use_relative_position_bias": config.relative == "blocks", "use_shared_relative_position_bias": config.relative == "shared",
        "layer_scale_init_value": 0.0 if config.layer_scale is None else config.layer_scale, "drop_path_rate": config.drop_path,
        "use_mean_pooling": config.pool == "mean" or head is not None,
        **({} if head is None else {"vocab_size": head.out_features}),
    }  # fmt: skip
    write_encoder(folder, theirs, their_blocks(config) | own, model.processor.view)
