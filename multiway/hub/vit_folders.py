"""Folders of the `transformers` library that hold a Vision Transformer on pictures: what the converters of ViT, DINOv2 and BEiT share.

A folder is read in the same steps for all of them: its class is checked, its config becomes ours, its tensors are renamed until
none is left over, and its processor says how pictures are drawn. A `Family` is what differs.

The way out begins with a ViT that may be the backbone of any method. Heads, twins and probes are left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill, state_of
from multiway.hub.transformers_folder import open_folder, read_config, read_tensors, write_json, write_tensors
from multiway.hub.transformers_view import read_view, write_view
from multiway.methods.picture_encoder import PictureEncoder, PictureEncoderConfig
from multiway.nn.vit import VisionConfig, VisionTransformer

__all__ = ["Family", "hidden_of", "network_of", "read_encoder", "tensors_of", "tower_of", "vit_of", "write_encoder"]


Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Family:
    """What differs between the folders of one family and another's.

    Attributes:
        kinds: the classes that are read, by `model_type`; the first is meant where the folder names none.
        config: ours from their `config.json`.
        table: which tensors are which, by our config and theirs.
        names: their tensors by the names that the table has.
        view: how pictures are drawn where the folder does not say; its size is the model's.
        squeezes: as of `read_view`.
        any_size: whether pictures may be drawn at another size than that of the positions, in whole patches.
    """

    kinds: Mapping[str, tuple[str, ...]]
    config: Callable[[Mapping[str, Any]], PictureEncoderConfig]
    table: Callable[[PictureEncoderConfig], Table]
    names: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    view: ViewSpec
    squeezes: bool = False
    any_size: bool = False


def read_encoder(source: str, family: Family, allow: Sequence[str] = ()) -> Model:
    """A picture encoder from a folder of the family.

    Args:
        source: the folder, or its name on the hub.
        family: that it has to be of.
        allow: see `hub/accounting.py`.

    Raises:
        WeightsError: if a file is missing, the class is another, or a tensor is unaccounted for.
    """
    folder = open_folder(source)
    theirs = read_config(folder)
    kinds = family.kinds.get(theirs.get("model_type", ""), ())
    kind = (theirs.get("architectures") or [*kinds, "model of no known class"])[0]
    if kind not in kinds:
        every = ", ".join(each for some in family.kinds.values() for each in some)
        raise WeightsError(f"{folder} holds a {kind} of type {theirs.get('model_type')!r}; expected one of {every}")
    config = family.config(theirs)
    method = PictureEncoder(config)
    report = fill(method, family.table(config), family.names(read_tensors(folder)), str(folder), allow)
    # Networks of convolutions have no size of their own, and take any number of pixels.
    size, patch = getattr(config.backbone, "size", None), getattr(config.backbone, "patch", 1)
    default = replace(family.view, size=size, shortest=None) if size and size != family.view.size else family.view
    view = read_view(folder, default, squeezes=family.squeezes, patch=patch if family.any_size else 0)
    return Model(method, Processor(view, None), report=report)


def write_encoder(folder: Path, theirs: dict[str, Tensor], config: dict[str, Any], view: ViewSpec) -> None:
    """Write what `from_pretrained` reads: weights, `config.json`, `preprocessor_config.json`.

    Args:
        folder: is made.
        theirs: tensors by their names.
        config: of their class.
        view: of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, theirs)
    write_json(folder / "config.json", config)
    write_view(folder, view)


# The ViT of a model, on the way out.


def tower_of(
    model: Model, kind: str, *, layer_scale: bool = True, registers: bool = False, beit: bool = False
) -> VisionTransformer:
    """The ViT of a model, if their class `kind` can be it.

    Args:
        model: any.
        kind: for the message.
        layer_scale, registers: whether it may have them.
        beit: whether positions may be relative or none, and the norm after the mean over patches.

    Raises:
        WeightsError: naming what stands in the way.
    """
    tower = getattr(model.method, "backbone", None)
    if not isinstance(tower, VisionTransformer):
        raise WeightsError(f"a {kind} is a Vision Transformer on pictures; this {model.name} has none as its backbone")
    config = tower.config
    wrong = [
        said
        for said, there in {
            "a convolutional stem": config.stem != "patch",
            "a patch embedding without bias": not config.patch_bias,
            "a norm before the blocks": config.pre_norm,
            "no class token": not config.has_class_token,
            "layer scale": config.layer_scale is not None and not layer_scale,
            "registers": config.registers > 0 and not registers,
            "other positions than one for each patch": (config.positions == "none" or config.biased) and not beit,
            "the mean of patches for a picture's vector": config.pool != "class" and not beit,
        }.items()
        if there
    ]
    if wrong:
        raise WeightsError(f"a {kind} cannot have what this {model.name} has: {', '.join(wrong)}")
    return tower


def vit_of(config: PictureEncoderConfig) -> VisionConfig:
    """The ViT of a picture encoder's config.

    Raises:
        WeightsError: if it has another network.
    """
    if not isinstance(config.backbone, VisionConfig):
        raise WeightsError(f"this layout is of a Vision Transformer; given {type(config.backbone).__name__}")
    return config.backbone


def network_of(model: Model, wanted: type[Network], kind: str) -> Network:
    """The backbone of a model, if it is such a network.

    Args:
        model: any.
        wanted: the class.
        kind: theirs, for the message.

    Raises:
        WeightsError: if the model has another backbone, or none.
    """
    found = getattr(model.method, "backbone", None)
    if not isinstance(found, wanted):
        raise WeightsError(f"a {kind} is a {wanted.__name__} on pictures; this {model.name} has none as its backbone")
    return found


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Those of a network as a picture encoder has them, fixed positions among them."""
    return {f"backbone.{name}": tensor for name, tensor in state_of(network).items()}


def hidden_of(config: VisionConfig) -> int:
    """Hidden width of the feed-forward part."""
    return int(config.width * config.mlp_ratio)
