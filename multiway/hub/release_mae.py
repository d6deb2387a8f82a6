"""MAE's checkpoints with their decoder, as its authors' code writes them (facebookresearch/mae).

The encoder alone, which is what was released for tuning, is a plain ViT and is read as one (`timm_networks.py`). Blocks of the decoder have
heads 32 wide, as released. Whether targets were normalised no tensor shows; they were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from multiway.data.processor import Processor
from multiway.hub import timm_names
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill
from multiway.hub.timm_networks import IMAGENET, count, vit_of_shapes
from multiway.hub.transformers_folder import mlp_ratio
from multiway.hub.transformers_vitmae import decoder, is_fixed
from multiway.methods.mae import Mae, MaeConfig
from multiway.nn.mae_decoder import MaeDecoderConfig

__all__ = ["from_state", "mae_config", "table"]


def table(patch: int) -> Table:
    """Which tensors are which; `patch` is the side of a patch."""
    blocks = timm_names.blocks("decoder.transformer.blocks.*", "decoder_blocks.*")
    return Table("MAE of its authors", [*timm_names.vit("backbone."), *decoder("", patch), *blocks])


def mae_config(theirs: Mapping[str, Tensor]) -> MaeConfig:
    """Our config from the shapes of a checkpoint, and from its positions whether these are fixed.

    Raises:
        WeightsError: if a tensor that shows a size is not there.
    """
    image = vit_of_shapes(theirs)
    side = math.isqrt(theirs["pos_embed"].shape[1] - 1)
    seen, decoded = theirs["pos_embed"][0], theirs["decoder_pos_embed"][0]
    width = len(theirs["decoder_embed.weight"])
    fixed = is_fixed(decoded[1:], (side, side)) and not decoded[0].any()
    inner = MaeDecoderConfig(
        width,
        count(theirs, "decoder_blocks."),
        max(1, width // 32),
        mlp_ratio(width, len(theirs["decoder_blocks.0.mlp.fc1.weight"])),
        "sincos" if fixed else "learned",
    )
    return MaeConfig(
        replace(image, positions="sincos" if is_fixed(seen[1:], (side, side)) else "learned"), decoder=inner
    )


def from_state(theirs: Mapping[str, Tensor], file: Path, allow: Sequence[str] = ()) -> Model:
    """An MAE from its authors' checkpoint.

    Raises:
        WeightsError: if a tensor is unaccounted for.
    """
    config = mae_config(theirs)
    method = Mae(config)
    report = fill(method, table(config.backbone.patch), theirs, str(file), allow)
    size = config.backbone.size
    return Model(method, Processor(replace(IMAGENET, size=size, shortest=round(size * 256 / 224)), None), report=report)
