"""ConvNeXts of the `transformers` library (`ConvNextModel`, `ConvNextForImageClassification`), in and out.

Liu et al., 2022, arXiv 2201.03545. A classifier is left behind, and it is said so.
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
from multiway.hub.rules import both, same, shifted
from multiway.hub.vit_folders import Family, network_of, read_encoder, tensors_of, write_encoder
from multiway.hub.vit_tensors import stripped
from multiway.methods.picture_encoder import PictureEncoderConfig
from multiway.nn.convnext import ConvNext, ConvNextConfig

__all__ = ["KINDS", "convnext_config", "from_transformers", "names", "table", "to_transformers"]

KINDS = ("ConvNextModel", "ConvNextForImageClassification")


def table(config: PictureEncoderConfig) -> Table:
    """Which tensors are which."""
    assert isinstance(config.backbone, ConvNextConfig)
    rules = both(
        ("backbone.stem.0", "embeddings.patch_embeddings"),
        ("backbone.stem.1", "embeddings.layernorm"),
        ("backbone.norm", "layernorm"),
    )
    for stage in range(len(config.backbone.depths)):
        own, their = f"backbone.stages.{stage}", f"encoder.stages.{stage}"
        if stage:
            rules += both(*((f"{own}.{each}", f"{their}.downsampling_layer.{each}") for each in (0, 1)))
        block = [
            *same((f"{own}.*.residual.scale", f"{their}.layers.*.layer_scale_parameter")),
            *both(
                (f"{own}.*.convolution", f"{their}.layers.*.dwconv"),
                (f"{own}.*.norm", f"{their}.layers.*.layernorm"),
                (f"{own}.*.mlp.up", f"{their}.layers.*.pwconv1"),
                (f"{own}.*.mlp.down", f"{their}.layers.*.pwconv2"),
            ),
        ]
        rules += shifted(block, -2 if stage else 0)  # a norm and a convolution stand before the blocks
    return Table(KINDS[0], rules, apart=[(r"^classifier\.", "a classifier")])


def names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors by the names of the table."""
    return stripped(theirs, "convnext")


def convnext_config(theirs: Mapping[str, Any]) -> PictureEncoderConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (ConvNeXt-T).

    Raises:
        WeightsError: for what has no counterpart here.
    """
    sizes, depths = theirs.get("hidden_sizes") or [96, 192, 384, 768], theirs.get("depths") or [3, 3, 9, 3]
    plain = {"num_channels": 3, "hidden_act": "gelu"}
    other = {name: theirs[name] for name, value in plain.items() if theirs.get(name, value) != value}
    if other or sizes != [sizes[0] * 2**stage for stage in range(len(depths))]:
        raise WeightsError(
            f"this ConvNeXt has hidden_sizes={sizes} {other or ''}; expected each stage twice as wide as the one before, GELU, and "
            "pictures of three colours"
        )
    if not 0 <= theirs.get("layer_norm_eps", 1e-12) <= 1e-6:
        raise WeightsError(
            f"this ConvNeXt's last norm has layer_norm_eps={theirs['layer_norm_eps']} and its others 1e-6; expected no more, as released"
        )
    scale = theirs.get("layer_scale_init_value", 1e-6)
    # Their last norm has the config's epsilon; all others 1e-6, which is what the paper's code has everywhere.
    return PictureEncoderConfig(
        ConvNextConfig(
            theirs.get("patch_size", 4), sizes[0], tuple(depths), layer_scale=float(scale) if scale > 0 else None
        )
    )


_FAMILY = Family(
    {"convnext": KINDS},
    convnext_config,
    table,
    names,
    ViewSpec(224, "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), shortest=256),
    any_size=True,
)


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A picture encoder from a folder in `transformers` layout, or by its name on the hub (`facebook/convnext-tiny-224`).

    Raises:
        WeightsError: if a file is missing, the class is another, or a tensor is unaccounted for.
    """
    return read_encoder(source, _FAMILY, allow)


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `ConvNextModel.from_pretrained` reads.

    Raises:
        WeightsError: if the model's backbone is no ConvNeXt with kernels of 7 and an epsilon of 1e-6.
    """
    network = network_of(model, ConvNext, KINDS[0])
    config = network.config
    if config.kernel != 7 or config.epsilon != 1e-6:
        raise WeightsError(
            f"a ConvNextModel has kernels of 7 and an epsilon of 1e-6; this one has kernel={config.kernel}, epsilon={config.epsilon}"
        )
    theirs = {
        "model_type": "convnext", "architectures": [KINDS[0]], "num_channels": 3, "patch_size": config.patch,
        "num_stages": len(config.depths), "hidden_sizes": [config.base * 2**stage for stage in range(len(config.depths))],
        "depths": list(config.depths), "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": model.processor.view.size,
        "layer_scale_init_value": config.layer_scale or 0.0, "drop_path_rate": config.drop_path,
    }  # fmt: skip
    write_encoder(folder, table(PictureEncoderConfig(config)).write(tensors_of(network)), theirs, model.processor.view)
