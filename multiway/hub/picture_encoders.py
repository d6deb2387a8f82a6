"""A picture encoder to the layout of `transformers` that has all of its parts: BEiT's, DINOv2's, DeiT's or the plain ViT's; ResNet's, Swin's, ConvNeXt's."""

from __future__ import annotations

from pathlib import Path

from multiway.hub import (
    transformers_beit,
    transformers_convnext,
    transformers_deit,
    transformers_dinov2,
    transformers_resnet,
    transformers_swin,
    transformers_vit,
)
from multiway.hub.model import Model
from multiway.nn.convnext import ConvNext
from multiway.nn.resnet import ResNet
from multiway.nn.swin import Swin
from multiway.nn.vit import VisionTransformer

__all__ = ["to_transformers"]

_NETWORKS = {ResNet: transformers_resnet, Swin: transformers_swin, ConvNext: transformers_convnext}


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `ViTModel`, `Dinov2Model` or `BeitModel` or a class of another network reads; which of them its config.json says.

    Raises:
        WeightsError: if none of them can be this model.
    """
    tower = getattr(model.method, "backbone", None)
    for network, layout in _NETWORKS.items():
        if isinstance(tower, network):
            layout.to_transformers(model, folder)
            return
    config = tower.config if isinstance(tower, VisionTransformer) else None
    if config is not None and (config.pool == "mean" or config.positions == "none" or config.biased):
        transformers_beit.to_transformers(model, folder)
    elif config is not None and config.registers == 1 and config.layer_scale is None and not config.antialias:
        transformers_deit.to_transformers(model, folder)
    elif config is not None and (config.layer_scale is not None or config.registers or config.activation == "swiglu"):
        transformers_dinov2.to_transformers(model, folder)
    else:
        transformers_vit.to_transformers(model, folder)
