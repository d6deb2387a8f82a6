"""ResNets of the `transformers` library (`ResNetModel`, `ResNetForImageClassification`), in and out.

He et al., 2016, arXiv 1512.03385, with the stride on the 3x3 convolution. A classifier is left behind, and it is said so.
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
from multiway.hub.rules import batch_norms, both
from multiway.hub.vit_folders import Family, network_of, read_encoder, tensors_of, write_encoder
from multiway.hub.vit_tensors import stripped
from multiway.methods.picture_encoder import PictureEncoderConfig
from multiway.nn.resnet import ResNet, ResNetConfig

__all__ = ["KINDS", "from_transformers", "names", "resnet_config", "table", "to_transformers"]

KINDS = ("ResNetModel", "ResNetForImageClassification")


def table(config: PictureEncoderConfig) -> Table:
    """Which tensors are which."""
    own = config.backbone
    assert isinstance(own, ResNetConfig)
    convolutions = [("backbone.stem.0", "embedder.embedder.convolution")]
    norms = [("backbone.stem.1", "embedder.embedder.normalization")]
    for stage in range(len(own.depths)):
        ours, theirs = f"backbone.stages.{stage}.*", f"encoder.stages.{stage}.layers.*"
        for number in range(2 if own.block == "basic" else 3):
            convolutions.append((f"{ours}.conv{number + 1}", f"{theirs}.layer.{number}.convolution"))
            norms.append((f"{ours}.norm{number + 1}", f"{theirs}.layer.{number}.normalization"))
        convolutions.append((f"{ours}.shortcut.0", f"{theirs}.shortcut.convolution"))
        norms.append((f"{ours}.shortcut.1", f"{theirs}.shortcut.normalization"))
    return Table(KINDS[0], [*both(*convolutions), *batch_norms(*norms)], apart=[(r"^classifier\.", "a classifier")])


def names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors by the names of the table."""
    return stripped(theirs, "resnet")


def resnet_config(theirs: Mapping[str, Any]) -> PictureEncoderConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (ResNet-50).

    Raises:
        WeightsError: for what has no counterpart here.
    """
    sizes, depths = theirs.get("hidden_sizes", [256, 512, 1024, 2048]), theirs.get("depths", [3, 4, 6, 3])
    base, kind = theirs.get("embedding_size", 64), theirs.get("layer_type", "bottleneck")
    wide = 4 if kind == "bottleneck" else 1
    plain = {
        "num_channels": 3,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    other = {name: theirs[name] for name, value in plain.items() if theirs.get(name, value) != value}
    if other or sizes != [base * wide * 2**stage for stage in range(len(depths))]:
        raise WeightsError(
            f"this ResNet has hidden_sizes={sizes}, embedding_size={base}, layer_type={kind!r} {other or ''}; expected the published "
            "form: each stage twice as wide as the one before, halving the picture from the second on"
        )
    return PictureEncoderConfig(ResNetConfig(kind, tuple(depths), base))


_FAMILY = Family(
    {"resnet": KINDS},
    resnet_config,
    table,
    names,
    ViewSpec(224, "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), shortest=256),
    any_size=True,
)


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A picture encoder from a folder in `transformers` layout, or by its name on the hub (`microsoft/resnet-50`).

    Raises:
        WeightsError: if a file is missing, the class is another, or a tensor is unaccounted for.
    """
    return read_encoder(source, _FAMILY, allow)


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `ResNetModel.from_pretrained` reads.

    Raises:
        WeightsError: if the model's backbone is no ResNet with the stem of ImageNet.
    """
    network = network_of(model, ResNet, KINDS[0])
    config = network.config
    if config.stem != "imagenet":
        raise WeightsError(f"a ResNetModel begins with the stem of ImageNet; this one has stem={config.stem!r}")
    wide = 4 if config.block == "bottleneck" else 1
    theirs = {
        "model_type": "resnet", "architectures": [KINDS[0]], "num_channels": 3, "embedding_size": config.base,
        "hidden_sizes": [config.base * wide * 2**stage for stage in range(len(config.depths))], "depths": list(config.depths),
        "layer_type": config.block, "hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False,
    }  # fmt: skip
    write_encoder(folder, table(PictureEncoderConfig(config)).write(tensors_of(network)), theirs, model.processor.view)
