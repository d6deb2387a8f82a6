"""The units of a network: what is sharded, and recomputed, as one.

A unit is a transformer block or a stage of a convolutional network: called as a whole, with nothing outside it that reads its
parameters. What lies beside the units (embeddings, heads, norms at the end) belongs to the method as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.checkpoint import checkpoint

from multiway.nn.block import Block
from multiway.nn.cache import BlockCache, KeyValues
from multiway.nn.convnext import ConvNext
from multiway.nn.interleaved import CrossBlock
from multiway.nn.multiway_block import MultiwayBlock
from multiway.nn.resnet import ModifiedResNet, ResNet
from multiway.nn.swin import Swin
from multiway.nn.timm_backbone import TimmBackbone
from multiway.nn.two_pictures import DoubledBlocks

__all__ = ["NoUnits", "is_recomputed", "recompute", "rounds_nothing", "units"]

_BLOCKS = (Block, MultiwayBlock, CrossBlock)
_STAGED = (ResNet, ModifiedResNet, ConvNext, Swin)
_LISTS = ("blocks", "stages", "layers", "layer1", "layer2", "layer3", "layer4")  # timm's names


class NoUnits(ValueError):
    """A network without a part of the kind that is asked for."""


def units(network: nn.Module) -> dict[str, nn.Module]:
    """The units of a network by name, outermost, in the order of its parts.

    Blocks of which a parameter is shared with another part, or that another part reads into, are left to the whole.
    """
    # One that reads a second picture takes keys and values from a block of the first without calling the block.
    opened = any(isinstance(part, DoubledBlocks) for part in network.modules())
    found: dict[str, nn.Module] = {}
    for name, part in network.named_modules():
        if isinstance(part, _BLOCKS) and not (opened and isinstance(part, Block) and part.cross is not None):
            found[name] = part
        elif isinstance(part, _STAGED):
            found |= {f"{name}.stages.{index}".lstrip("."): stage for index, stage in enumerate(part.stages)}
        elif isinstance(part, TimmBackbone):
            for own, inner in part.network.named_children():
                if own in _LISTS and isinstance(inner, nn.Sequential | nn.ModuleList):
                    found |= {f"{name}.network.{own}.{index}".lstrip("."): each for index, each in enumerate(inner)}
    used = _uses(network)
    return {name: unit for name, unit in found.items() if all(used[key] == own for key, own in _uses(unit).items())}


def rounds_nothing(unit: nn.Module) -> bool:
    """Whether its matrices may be handed to it in bf16 under bf16 autocast, with the same result.

    So it is where they are factors of matrix products and convolutions alone, for which autocast rounds them itself. A table that is
    looked up, or a matrix that low-rank changes are added to, is used as it is.
    """
    if isinstance(unit, MultiwayBlock):
        return True
    return all(
        isinstance(part, nn.Linear | _ConvNd) and "change" not in vars(part)
        for part in unit.modules()
        if any(own is not None and own.ndim > 1 for own in part._parameters.values())
    )


def _uses(network: nn.Module) -> Counter[int]:
    """How often each parameter is somebody's, whichever way one comes to it."""
    parts = network.named_modules(remove_duplicate=False)
    return Counter(id(own) for _, part in parts for own in part._parameters.values() if own is not None)


def recompute(network: nn.Module) -> int:
    """Let every unit keep its input alone, and compute what is in between again in the backward pass.

    Chen, Xu, Zhang, Guestrin, Training Deep Nets with Sublinear Memory Cost, 2016, arXiv 1604.06174, section 3. The numbers stay
    the same; about a third more is computed. Random numbers of dropout are drawn again alike.

    Units with batch normalisation are left alone, whose running statistics would move twice, and so are calls that fill a cache
    or record what they see.

    Returns:
        How many units are recomputed.

    Raises:
        NoUnits: if there is none.
    """
    every = units(network)
    already = {id(unit) for stack in network.modules() if _recomputes(stack) for unit in units(stack).values()}
    chosen = [unit for unit in every.values() if not any(isinstance(part, _BatchNorm) for part in unit.modules())]
    if not chosen:
        why = f"each of its {len(every)} stages has batch normalisation" if every else "it has no transformer blocks"
        raise NoUnits(
            f"checkpoint_blocks recomputes blocks in the backward pass, and {type(network).__name__} has none for which that is "
            f"possible: {why}; leave it off, and use a smaller batch, accumulate, or a transformer as backbone"
        )
    for unit in chosen:
        if id(unit) not in already and not is_recomputed(unit):
            _recompute_one(unit)
    return len(chosen)


def _recomputes(stack: nn.Module) -> bool:
    """Whether its own configuration says so."""
    return bool(getattr(getattr(stack, "config", None), "checkpoint", False))


def _recompute_one(unit: nn.Module) -> None:
    inner = unit.forward

    def forward(*given: Any, **named: Any) -> Any:
        # What is kept of a pass for another one, or for people, is written once.
        kept = any(isinstance(each, BlockCache | KeyValues | MutableMapping) for each in (*given, *named.values()))
        if kept or not (unit.training and torch.is_grad_enabled()):
            return inner(*given, **named)
        return checkpoint(inner, *given, use_reentrant=False, **named)

    unit.forward = forward  # type: ignore[method-assign]


def is_recomputed(unit: nn.Module) -> bool:
    """Whether `recompute` has been told of it."""
    return "forward" in vars(unit)
