"""ViT, ResNet, Swin and ConvNeXt under the names of the `timm` library, which are mostly those of the papers' own code.

What its state dicts share with the releases of DeiT, DINO, MAE, MoCo, SwAV, ALBEF and BLIP, and with torchvision's ResNets.
"""

from __future__ import annotations

from multiway.hub.file import WeightsError
from multiway.hub.rules import Rule, batch_norms, both, leading, patches, placed, same, shifted
from multiway.hub.transformers_deit import with_distillation
from multiway.hub.transformers_swin import displacements
from multiway.nn.backbone import BackboneConfig
from multiway.nn.convnext import ConvNextConfig
from multiway.nn.resnet import ResNetConfig
from multiway.nn.swin import SwinConfig
from multiway.nn.vit import VisionConfig

__all__ = ["blocks", "resnet", "rules", "vit"]


def vit(ours: str, theirs: str = "", *, distilled: bool = False) -> list[Rule]:
    """A ViT.

    Args:
        ours, theirs: what the names begin with, a dot at the end.
        distilled: whether there is DeiT's second token.
    """
    own, their = f"{ours}transformer.blocks.*", f"{theirs}blocks.*"
    scales = [
        (f"{own}.{part}_residual.scale", f"{their}.{scale}.gamma")
        for part, scale in (("attention", "ls1"), ("mlp", "ls2"))
    ]
    places = (
        [with_distillation(ours, f"{theirs}dist_token", f"{theirs}pos_embed")]
        if distilled
        else placed(ours, f"{theirs}pos_embed")
    )
    return [
        *leading((f"{ours}class_token", f"{theirs}cls_token")),
        *places,
        *leading((f"{ours}registers", f"{theirs}reg_token"), dims=1),
        *patches(f"{ours}patches.project", f"{theirs}patch_embed.proj"),
        *same(*scales),
        *both((f"{ours}pre_norm", f"{theirs}norm_pre"), (f"{ours}transformer.norm", f"{theirs}norm")),
        *blocks(own, their),
    ]


def blocks(own: str, their: str) -> list[Rule]:
    """The blocks of a ViT or a Swin, whose names begin so with a number in them."""
    return both(
        (f"{own}.attention_norm", f"{their}.norm1"),
        (f"{own}.attention.qkv", f"{their}.attn.qkv"),
        (f"{own}.attention.out", f"{their}.attn.proj"),
        (f"{own}.mlp_norm", f"{their}.norm2"),
        (f"{own}.mlp.up", f"{their}.mlp.fc1"),
        (f"{own}.mlp.down", f"{their}.mlp.fc2"),
    )


def resnet(config: ResNetConfig, ours: str, theirs: str = "") -> list[Rule]:
    """A ResNet, by torchvision's names."""
    convolutions, norms = [(f"{ours}stem.0", f"{theirs}conv1")], [(f"{ours}stem.1", f"{theirs}bn1")]
    for stage in range(len(config.depths)):
        own, their = f"{ours}stages.{stage}.*", f"{theirs}layer{stage + 1}.*"
        numbers = (1, 2) if config.block == "basic" else (1, 2, 3)
        convolutions += [(f"{own}.conv{each}", f"{their}.conv{each}") for each in numbers]
        norms += [(f"{own}.norm{each}", f"{their}.bn{each}") for each in numbers]
        convolutions.append((f"{own}.shortcut.0", f"{their}.downsample.0"))
        norms.append((f"{own}.shortcut.1", f"{their}.downsample.1"))
    return [*both(*convolutions), *batch_norms(*norms)]


def _swin(config: SwinConfig, ours: str, theirs: str = "") -> list[Rule]:
    found = [
        *patches(f"{ours}patches.project", f"{theirs}patch_embed.proj"),
        *both((f"{ours}patch_norm", f"{theirs}patch_embed.norm"), (f"{ours}norm", f"{theirs}norm")),
    ]
    for stage in range(len(config.depths)):
        if stage:  # timm keeps the merging before its stage, as ours
            merge = f"{theirs}layers.{stage}.downsample"
            found += both(
                (f"{ours}stages.{stage}.0.norm", f"{merge}.norm"),
                (f"{ours}stages.{stage}.0.project", f"{merge}.reduction"),
            )
        own, their = f"{ours}stages.{stage}.*", f"{theirs}layers.{stage}.blocks.*"
        block = [
            *displacements(f"{own}.attention.displacements", f"{their}.attn.relative_position_bias_table"),
            *blocks(own, their),
        ]
        found += shifted(block, -1 if stage else 0)  # from the second stage on the merging stands before the blocks
    return found


def _convnext(config: ConvNextConfig, ours: str, theirs: str = "") -> list[Rule]:
    found = both(
        (f"{ours}stem.0", f"{theirs}stem.0"),
        (f"{ours}stem.1", f"{theirs}stem.1"),
        (f"{ours}norm", f"{theirs}head.norm"),
    )
    for stage in range(len(config.depths)):
        own, their = f"{ours}stages.{stage}", f"{theirs}stages.{stage}"
        if stage:
            found += both(*((f"{own}.{each}", f"{their}.downsample.{each}") for each in (0, 1)))
        block = [
            *same((f"{own}.*.residual.scale", f"{their}.blocks.*.gamma")),
            *both(
                (f"{own}.*.convolution", f"{their}.blocks.*.conv_dw"),
                (f"{own}.*.norm", f"{their}.blocks.*.norm"),
                (f"{own}.*.mlp.up", f"{their}.blocks.*.mlp.fc1"),
                (f"{own}.*.mlp.down", f"{their}.blocks.*.mlp.fc2"),
            ),
        ]
        found += shifted(block, -2 if stage else 0)  # a norm and a convolution stand before the blocks
    return found


def rules(config: BackboneConfig, ours: str, theirs: str = "", *, distilled: bool = False) -> list[Rule]:
    """Of any of the four."""
    match config:
        case VisionConfig():
            return vit(ours, theirs, distilled=distilled)
        case ResNetConfig():
            return resnet(config, ours, theirs)
        case SwinConfig():
            return _swin(config, ours, theirs)
        case ConvNextConfig():
            return _convnext(config, ours, theirs)
    raise WeightsError(f"timm's tensors are read into a ViT, ResNet, Swin or ConvNeXt; given {type(config).__name__}")
