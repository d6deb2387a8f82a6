"""The tensors of a Vision Transformer under the names of `transformers`, in and out: what its ViT, DINOv2 and BEiT share.

Theirs keep query, key and value apart, the patch embedding as a convolution, and the class token's position in one table with the
patches'; ours merge the first and split the last. Nothing is computed, so the round trip is exact to the bit. Folders written by
transformers 5 and before it name the layers alike; what a model of transformers 5 calls them in memory is read too.

A key's bias adds the same number to all scores of a query, which softmax does not see. So BEiT, which has none, is read with zeros,
and what a bias has become in training is dropped on the way out: the model is the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multiway.hub.file import WeightsError
from multiway.hub.rules import Rule, both, joined, leading, patches, placed, same
from multiway.hub.transformers_folder import activation_of, mlp_ratio, their_activation
from multiway.nn.vit import VisionConfig

__all__ = ["Names", "blocks", "blocks_of", "grid_sides", "older", "require_plain", "stripped", "their_blocks", "tower"]

_OLDER = [(r"(^|\.)layers\.(\d+)\.", r"\1encoder.layer.\2."), (r"\.attention\.q_proj\.", ".attention.attention.query."),
          (r"\.attention\.k_proj\.", ".attention.attention.key."),
          (r"\.attention\.v_proj\.", ".attention.attention.value."),
          (r"\.attention\.o_proj\.", ".attention.output.dense.")]  # fmt: skip


@dataclass(frozen=True)
class Names:
    """What a family calls the parts of a block in its folders.

    Attributes:
        norms: before attention and before the feed-forward part.
        mlp: its two linear maps.
        scales: factors per channel on both parts; the names are those of whole tensors.
        key_bias: whether keys have one.
        newer: (regular expression, replacement) from the names in memory to those in folders, beside what all families share.
    """

    norms: tuple[str, str] = ("layernorm_before", "layernorm_after")
    mlp: tuple[str, str] = ("intermediate.dense", "output.dense")
    scales: tuple[str, str] = ("", "")
    key_bias: bool = True
    newer: tuple[tuple[str, str], ...] = (
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    )


def older(theirs: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Tensors by the names that they have in folders, whichever they came by."""
    found = {}
    for name, tensor in theirs.items():
        for pattern, replacement in (*_OLDER, *names.newer):
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found


def stripped(theirs: Mapping[str, Tensor], *roots: str) -> dict[str, Tensor]:
    """Tensors without the name of the part that the encoder is in a class with a head on it: the first of these roots that there is."""
    root = next((f"{root}." for root in roots if any(name.startswith(f"{root}.") for name in theirs)), "")
    return {name.removeprefix(root): each for name, each in theirs.items()}


def tower(config: VisionConfig, names: Names, ours: str = "backbone.") -> list[Rule]:
    """Rules for a ViT, without those of relative positions and of a norm after the pool.

    Args:
        config: of ours.
        names: the family's.
        ours: what ours begin with.
    """
    rules = [
        *blocks(f"{ours}transformer.blocks.*", "encoder.layer.*", names),
        *patches(f"{ours}patches.project", "embeddings.patch_embeddings.projection"),
        *leading((f"{ours}class_token", "embeddings.cls_token")),
        *leading((f"{ours}registers", "embeddings.register_tokens"), dims=1),
    ]
    if config.positions != "none":
        rules += placed(ours, "embeddings.position_embeddings")
    if not config.pool_norm:
        rules += both((f"{ours}transformer.norm", "layernorm"))
    return rules


def blocks(own: str, their: str, names: Names) -> list[Rule]:
    """Rules for the blocks, whose names begin so with a number in them."""
    rules = joined(f"{own}.attention.qkv", their + ".attention.attention.{}")
    if not names.key_bias:
        rules[1] = Rule(
            (f"{own}.attention.qkv.bias",),
            tuple(f"{their}.attention.attention.{part}.bias" for part in ("query", "value")),
            lambda tensors: [torch.cat([tensors[0], torch.zeros_like(tensors[0]), tensors[1]])],
            lambda tensors: tensors[0].chunk(3)[::2],
        )
    if names.scales[0]:
        rules += same(
            *(
                (f"{own}.{part}_residual.scale", f"{their}.{scale}")
                for part, scale in zip(("attention", "mlp"), names.scales)
            )
        )
    return rules + both(
        (f"{own}.attention.out", f"{their}.attention.output.dense"),
        (f"{own}.attention_norm", f"{their}.{names.norms[0]}"),
        (f"{own}.mlp_norm", f"{their}.{names.norms[1]}"),
        (f"{own}.mlp.up", f"{their}.{names.mlp[0]}"),
        (f"{own}.mlp.down", f"{their}.{names.mlp[1]}"),
    )


# Their `config.json`.


def require_plain(theirs: Mapping[str, Any], family: str) -> None:
    """Refuse what a ViT here cannot be.

    Raises:
        WeightsError: naming the settings.
    """
    plain = {"num_channels": 3, "qkv_bias": True, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    other = {name: theirs[name] for name, value in plain.items() if theirs.get(name, value) != value}
    if other:
        raise WeightsError(
            f"this {family} has {', '.join(f'{name}={value}' for name, value in other.items())}; expected pictures of three colours, "
            "biases and no dropout"
        )


def grid_sides(theirs: Mapping[str, Any], size: int, patch: int) -> dict[str, Any]:
    """`size` and `patch` of our config, by theirs or these defaults.

    Raises:
        WeightsError: if pictures or patches are not square, or these do not divide those.
    """
    found = {"size": theirs.get("image_size", size), "patch": theirs.get("patch_size", patch)}
    for name, value in found.items():
        if isinstance(value, list | tuple) and len(set(value)) == 1:
            found[name] = value[0]
    sides = found["size"], found["patch"]
    if not all(isinstance(each, int) and each > 0 for each in sides) or sides[0] % sides[1]:
        raise WeightsError(
            f"the config has pictures of {sides[0]!r} and patches of {sides[1]!r} pixels; expected squares that fit"
        )
    return found


def blocks_of(theirs: Mapping[str, Any], hidden: int, epsilon: float) -> dict[str, Any]:
    """Fields of our config that are about the blocks.

    Args:
        theirs: the parsed file; what it lacks is ViT-B.
        hidden: width of the feed-forward part.
        epsilon: the family's default.
    """
    width = theirs.get("hidden_size", 768)
    return {
        "width": width,
        "layers": theirs.get("num_hidden_layers", 12),
        "heads": theirs.get("num_attention_heads", 12),
        "mlp_ratio": mlp_ratio(width, hidden),
        "activation": activation_of(theirs.get("hidden_act", "gelu")),
        "epsilon": theirs.get("layer_norm_eps", epsilon),
    }


def their_blocks(config: VisionConfig) -> dict[str, Any]:
    """Their fields that every family has; the feed-forward part's width is told in each in its own way."""
    return {
        "image_size": config.size, "patch_size": config.patch, "num_channels": 3, "hidden_size": config.width,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads, "layer_norm_eps": config.epsilon,
        "hidden_act": their_activation(config.activation), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
