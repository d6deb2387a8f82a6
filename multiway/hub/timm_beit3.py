"""The vision side of BEiT-3 in `timm` (`beit3_base_patch16_224` and its like), in and out.

Theirs is a `VisionTransformer` whose blocks have the two inner norms; of ours it has what a picture alone passes through. What
it lacks is told by `lacking`, and is never taken from it in silence: words, language experts, the token of hidden patches and
heads. Its classifiers pool the patches first and norm after (`fc_norm`, `head`), which is a classifier's matter and nothing of
ours: such tensors stay in the file if they are named. A `global_pool="token"` has the final norm that the released encoder has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from multiway.hub.file import WeightsError, assign
from multiway.hub.torchscale_beit3 import without
from multiway.methods.beit3 import Beit3, Beit3Config

__all__ = ["lacking", "ours_to_theirs", "read_vision", "theirs_to_ours"]

_NORM = "blocks.norm.experts.vision"
_LACKS = (r"words\.", r".*\.experts\.language\.", r"pictures\.mask_token$", r"(word|code)_head\.", r"log_scale$",
          r"(image|text)_projection\.", r"tokeniser\.")  # fmt: skip
_PARTS = {
    "attention_norm.experts.vision": "norm1",
    "projection.experts.vision": "attn.qkv",
    "mixed_norm.experts.vision": "attn.norm",
    "out.experts.vision": "attn.proj",
    "mlp_norm.experts.vision": "norm2",
    "mlp.experts.vision.up": "mlp.fc1",
    "mlp.experts.vision.norm": "mlp.norm",
    "mlp.experts.vision.down": "mlp.fc2",
}
_BIASES = ("query_bias", "key_bias", "value_bias")


def _renamed(config: Beit3Config, normed: bool) -> Iterator[tuple[str, str]]:
    """(ours, theirs) for tensors that differ in name alone."""
    pairs = [(_NORM, "norm")] if normed else []
    for layer in range(config.blocks.layers):
        pairs += [(f"blocks.blocks.{layer}.{own}", f"blocks.{layer}.{their}") for own, their in _PARTS.items()]
    for own, their in pairs:
        yield f"{own}.weight", f"{their}.weight"
        if not their.endswith("qkv"):
            yield f"{own}.bias", f"{their}.bias"
    yield "pictures.patches.project.bias", "patch_embed.proj.bias"


def _projections(config: Beit3Config) -> Iterator[tuple[str, str]]:
    for layer in range(config.blocks.layers):
        yield f"blocks.blocks.{layer}.projection.experts.vision", f"blocks.{layer}.attn.qkv.bias"


def theirs_to_ours(theirs: Mapping[str, Tensor], config: Beit3Config) -> dict[str, Tensor]:
    """Their tensors under our names: the vision side, and the final norm if theirs is before pooling.

    Raises:
        WeightsError: naming tensors that are missing, or that nothing here accounts for.
    """
    left, ours = dict(theirs), {}
    try:
        for own, their in _renamed(config, "norm.weight" in left):
            ours[own] = left.pop(their)
        for own, their in _projections(config):
            ours |= {f"{own}.{name}": bias for name, bias in zip(_BIASES, left.pop(their).chunk(3), strict=True)}
        ours["pictures.patches.project.weight"] = left.pop("patch_embed.proj.weight").flatten(1)
        ours["pictures.class_token"] = left.pop("cls_token").flatten()
        places = left.pop("pos_embed").squeeze(0)
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a BEiT-3 of timm?") from error
    ours["pictures.class_position"], ours["pictures.positions"] = places[0], places[1:]
    if left:
        raise WeightsError(
            f"the checkpoint has tensors that the vision side of BEiT-3 does not: {', '.join(sorted(left)[:8])}; a classifier "
            "stays in the file if it is named, leave=('fc_norm.', 'head.')"
        )
    return ours


def ours_to_theirs(ours: Mapping[str, Tensor], config: Beit3Config, *, normed: bool = True) -> dict[str, Tensor]:
    """The vision side of ours under their names, for `create_model(..., global_pool="token", num_classes=0)`; `normed=False`
    leaves the final norm out, for `final_norm=False` there.

    Raises:
        WeightsError: if the model is not of the released form.
    """
    blocks = config.blocks
    form = (blocks.attention, blocks.sub_norm, blocks.key_bias, blocks.layer_scale, blocks.activation, config.stem)
    if form != ("decoupled", True, True, None, "gelu", "patch") or blocks.epsilon != 1e-5:
        raise WeightsError(
            "timm's BEiT-3 is the released one: attention='decoupled', sub_norm=True, key_bias=True, layer_scale=None, GELU, "
            f"epsilon=1e-5, stem='patch'; given {form} and epsilon {blocks.epsilon}"
        )
    theirs = {their: ours[own] for own, their in _renamed(config, normed)}
    for own, their in _projections(config):
        theirs[their] = torch.cat([ours[f"{own}.{name}"] for name in _BIASES])
    weight = ours["pictures.patches.project.weight"]
    theirs["patch_embed.proj.weight"] = weight.unflatten(1, (3, config.patch, config.patch))
    theirs["cls_token"] = ours["pictures.class_token"][None, None]
    theirs["pos_embed"] = torch.cat([ours["pictures.class_position"][None], ours["pictures.positions"]])[None]
    return theirs


def lacking(ours: Mapping[str, Tensor], *, normed: bool = True) -> tuple[str, ...]:
    """Names of our tensors that a model of theirs has no counterpart of; with `normed=False` the final norm is among them."""
    return tuple(
        name for name in ours if any(re.match(each, name) for each in _LACKS) or (not normed and name.startswith(_NORM))
    )


def read_vision(method: Beit3, theirs: Mapping[str, Tensor], leave: Sequence[str] = ()) -> tuple[str, ...]:
    """Copy their vision side into a model of ours.

    Args:
        method: of the released form and their sizes; changed in place.
        theirs: the state of a BEiT-3 of timm.
        leave: beginnings of names of tensors that are not taken: a classifier's, `("fc_norm.", "head.")`.

    Returns:
        Names of the tensors of ours that theirs lacks, and which stay as they were.

    Raises:
        WeightsError: if a tensor on either side is unaccounted for, or has another shape.
    """
    offered = without(theirs, leave)
    found, own = theirs_to_ours(offered, method.config), method.state_dict()
    kept = lacking(own, normed="norm.weight" in offered)
    assign(method, {**found, **{name: own[name] for name in kept}}, "timm's BEiT-3")
    return kept
