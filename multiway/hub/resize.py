"""A model for pictures of another size: the same weights, positions interpolated to another grid of patches."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from multiway.data.processor import Processor
from multiway.hub.accounting import Report
from multiway.hub.file import WeightsError, assign
from multiway.hub.model import Model
from multiway.methods.method import Method
from multiway.nn.displacements import resize_displacements
from multiway.nn.patch import resize_positions
from multiway.nn.relative import RelativePositions
from multiway.nn.relative_patches import OF_CLASS, RelativePatches
from multiway.nn.text import TextEmbed, resize_text_positions

__all__ = ["positions_for", "resized"]


def resized(model: Model, size: int) -> Model:
    """A model that sees pictures of `size` pixels.

    Tables of positions, and of displacements of patches, are interpolated (`nn/patch.py`, `nn/displacements.py`); all other tensors are
    the same. Networks of convolutions and Swin have none: only how pictures are drawn changes.

    Args:
        model: is left as it is.
        size: side in pixels; whole patches.

    Returns:
        A model whose `report` names what was resized.

    Raises:
        WeightsError: if patches do not divide the size, or something else than positions would have another shape.
    """
    method = model.method
    try:
        other = type(method)(_at(method.config, size)).eval()  # type: ignore[call-arg]
    except ValueError as error:
        raise WeightsError(f"pictures of {size} pixels do not fit this {model.name}: {error}") from error
    own, wanted = method.state_dict(), other.state_dict()
    changed = {}
    for name, mine in wanted.items():
        if name in own and own[name].shape != mine.shape:
            found = positions_for(other, name, own[name], mine)
            if found is not None:
                changed[name] = found
    with torch.no_grad():
        assign(other, {**own, **changed}, f"this {model.name} at {size} pixels")
    other.to(model.device)
    view = model.processor.view
    shortest = None if view.shortest is None else round(view.shortest * size / view.size)  # the same share is cut out
    view = replace(view, size=size, shortest=shortest)
    report = model.report or Report(f"{model.name} at {model.processor.view.size} pixels", model.name)
    report = replace(report, resized=tuple(changed))
    processor = Processor(view, model.processor.tokenizer)
    return Model(other, processor, model.precision, model.batch, report, model.origin)


def _at(config: Any, size: int) -> Any:
    """A config with `size` in place of every size of pictures in it: that of whatever has patches or convolutions."""
    changes: dict[str, Any] = {}
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if each.name == "size" and isinstance(value, int):
            changes["size"] = size
        elif dataclasses.is_dataclass(value):
            changes[each.name] = _at(value, size)
    return replace(config, **changes)


def positions_for(method: Method, name: str, theirs: Tensor, mine: Tensor, texts: bool = False) -> Tensor | None:
    """Another grid's positions for this one.

    Args:
        method: that has the grid.
        name: of the tensor in it.
        theirs, mine: of the other grid, and of this one, whose values do not count.
        texts: whether those of texts may be interpolated as well.

    Returns:
        As `mine`; None where the tensors are no positions of square grids, or of texts that may change.
    """
    owner = method.get_submodule(name.rpartition(".")[0])
    if isinstance(owner, TextEmbed) and name.endswith("positions"):
        return resize_text_positions(theirs, len(mine)) if texts and theirs.shape[1:] == mine.shape[1:] else None
    if isinstance(owner, RelativePositions):
        return owner.of_other_grid(theirs)
    same_kind = theirs.ndim == mine.ndim == 2 and theirs.shape[1] == mine.shape[1]
    if isinstance(owner, RelativePatches) and same_kind:
        side = math.isqrt(len(theirs) - OF_CLASS)
        if side % 2 == 0 or side**2 + OF_CLASS != len(theirs):
            return None
        near = resize_displacements(theirs[:-OF_CLASS], ((side + 1) // 2,) * 2, owner.grid)
        return torch.cat([near, theirs[-OF_CLASS:]])
    grids = [math.isqrt(len(each)) for each in (theirs, mine)] if same_kind else [0, 0]
    square = all(side and side**2 == len(each) for side, each in zip(grids, (theirs, mine), strict=True))
    if not name.endswith("positions") or not square:
        return None
    averaged = getattr(getattr(owner, "config", None), "antialias", False)
    return resize_positions(theirs, (grids[0],) * 2, (grids[1],) * 2, antialias=averaged)
