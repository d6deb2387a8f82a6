"""Swins of the `transformers` library (`SwinModel`, `SwinForImageClassification`), in and out.

Liu et al., 2021, arXiv 2103.14030. Theirs merge patches at the end of a stage, ours at the beginning of the next; their tables of
displacements are flat. A classifier is left behind, and it is said so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from multiway.batch import ViewSpec
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table
from multiway.hub.rules import Rule, both, joined, laid_out, patches, shifted
from multiway.hub.vit_folders import Family, network_of, read_encoder, tensors_of, write_encoder
from multiway.hub.vit_tensors import Names, grid_sides, older, require_plain, stripped
from multiway.methods.picture_encoder import PictureEncoderConfig
from multiway.nn.swin import Swin, SwinConfig

__all__ = ["KINDS", "displacements", "from_transformers", "names", "swin_config", "table", "to_transformers"]

_EPSILON = 1e-5
KINDS = ("SwinModel", "SwinForImageClassification")
_NEWER = Names(newer=(*Names().newer, (r"\.attention\.attention\.", ".attention.self."),
                      (r"\.attention\.relative_position_bias\.", ".attention.self."),
                      (r"\.attention\.relative_position_bias_table", ".attention.self.relative_position_bias_table")))  # fmt: skip


def displacements(ours: str, theirs: str) -> list[Rule]:
    """The numbers for each displacement within a window: a square table here, its rows laid end to end there."""

    def square(flat: Tensor) -> Tensor:
        side = math.isqrt(len(flat))
        return flat.unflatten(0, (side, side))

    return laid_out(ours, theirs, square, lambda table: table.flatten(0, 1))


def table(config: PictureEncoderConfig) -> Table:
    """Which tensors are which."""
    assert isinstance(config.backbone, SwinConfig)
    rules = [
        *patches("backbone.patches.project", "embeddings.patch_embeddings.projection"),
        *both(("backbone.patch_norm", "embeddings.norm"), ("backbone.norm", "layernorm")),
    ]
    for stage in range(len(config.backbone.depths)):
        if stage:
            merge = f"encoder.layers.{stage - 1}.downsample"
            rules += both(
                (f"backbone.stages.{stage}.0.norm", f"{merge}.norm"),
                (f"backbone.stages.{stage}.0.project", f"{merge}.reduction"),
            )
        own, their = f"backbone.stages.{stage}.*", f"encoder.layers.{stage}.blocks.*"
        block = [
            *joined(f"{own}.attention.qkv", their + ".attention.self.{}"),
            *displacements(f"{own}.attention.displacements", f"{their}.attention.self.relative_position_bias_table"),
            *both(
                (f"{own}.attention.out", f"{their}.attention.output.dense"),
                (f"{own}.attention_norm", f"{their}.layernorm_before"),
                (f"{own}.mlp_norm", f"{their}.layernorm_after"),
                (f"{own}.mlp.up", f"{their}.intermediate.dense"),
                (f"{own}.mlp.down", f"{their}.output.dense"),
            ),
        ]
        rules += shifted(block, -1 if stage else 0)  # from the second stage on the merging stands before the blocks
    index = (r"relative_position_index$", "numbers of displacements, which follow from the window")
    return Table(KINDS[0], rules, empty=[index], apart=[(r"^classifier\.", "a classifier")])


def names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, of a folder or of a model in memory, by the names of the table."""
    found = {name.replace("encoder.layers", "encoder.STAGES"): each for name, each in theirs.items()}
    return {
        name.replace("encoder.STAGES", "encoder.layers"): each
        for name, each in stripped(older(found, _NEWER), "swin").items()
    }


def swin_config(theirs: Mapping[str, Any]) -> PictureEncoderConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (Swin-T).

    Raises:
        WeightsError: for what has no counterpart here.
    """
    require_plain(theirs, "Swin")
    base, heads = theirs.get("embed_dim", 96), theirs.get("num_heads", [3, 6, 12, 24])
    depths = theirs.get("depths", [2, 2, 6, 2])
    if heads != [heads[0] * 2**stage for stage in range(len(depths))] or theirs.get("use_absolute_embeddings", False):
        raise WeightsError(
            f"this Swin has num_heads={heads} and use_absolute_embeddings={theirs.get('use_absolute_embeddings', False)}; expected "
            "twice as many heads in each stage as in the one before, and no absolute positions"
        )
    if theirs.get("hidden_act", "gelu") != "gelu":
        raise WeightsError(f"this Swin has hidden_act={theirs['hidden_act']!r}; expected gelu")
    if theirs.get("layer_norm_eps", _EPSILON) != _EPSILON:
        raise WeightsError(
            f"this Swin has layer_norm_eps={theirs['layer_norm_eps']}, which theirs gives some norms and {_EPSILON} the others; expected "
            f"{_EPSILON} in all, as released"
        )
    return PictureEncoderConfig(
        SwinConfig(
            **grid_sides(theirs, 224, 4),
            base=base,
            depths=tuple(depths),
            head_width=base // heads[0],
            window=theirs.get("window_size", 7),
            mlp_ratio=float(theirs.get("mlp_ratio", 4.0)),
            epsilon=_EPSILON,
        )
    )


_FAMILY = Family(
    {"swin": KINDS},
    swin_config,
    table,
    names,
    ViewSpec(crop="squash", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    squeezes=True,
)


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A picture encoder from a folder in `transformers` layout, or by its name on the hub.

    Raises:
        WeightsError: if a file is missing, the class is another, or a tensor is unaccounted for.
    """
    return read_encoder(source, _FAMILY, allow)


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `SwinModel.from_pretrained(folder, add_pooling_layer=False)` reads.

    Raises:
        WeightsError: if the model's backbone is no Swin, or has another epsilon than theirs.
    """
    network = network_of(model, Swin, KINDS[0])
    config = network.config
    if config.epsilon != _EPSILON:
        raise WeightsError(
            f"a SwinModel has an epsilon of {_EPSILON} in all of its norms; this one has {config.epsilon}"
        )
    theirs = {
        "model_type": "swin", "architectures": [KINDS[0]], "num_channels": 3, "image_size": config.size, "patch_size": config.patch,
        "embed_dim": config.base, "depths": list(config.depths), "window_size": config.window, "mlp_ratio": config.mlp_ratio,
        "num_heads": [config.base * 2**stage // config.head_width for stage in range(len(config.depths))], "qkv_bias": True,
        "layer_norm_eps": config.epsilon, "drop_path_rate": config.drop_path, "hidden_act": "gelu", "use_absolute_embeddings": False,
    }  # fmt: skip
    write_encoder(folder, table(PictureEncoderConfig(config)).write(tensors_of(network)), theirs, model.processor.view)
