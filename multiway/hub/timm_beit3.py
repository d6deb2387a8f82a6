"""The vision side of BEiT-3 in `timm` (`beit3_base_patch16_224` and its like), in and out.

Theirs is a `VisionTransformer` whose blocks have the two inner norms; of ours it has what a picture alone passes through. What
it lacks is told by `lacking`, and is never taken from it in silence: words, language experts, the token of hidden patches and
heads. Its classifiers pool the patches first and norm after (`fc_norm`, `head`), which is a classifier's matter and nothing of
ours: such tensors stay in the file if they are named. A `global_pool="token"` has the final norm that the released encoder has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from multiway.hub.file import WeightsError, assign
from multiway.hub.renaming import Table
from multiway.hub.rules import Rule, both, leading, patches, placed
from multiway.hub.torchscale_beit3 import without
from multiway.methods.beit3 import Beit3, Beit3Config

__all__ = ["lacking", "ours_to_theirs", "read_vision", "table", "theirs_to_ours"]

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


def table(normed: bool = True) -> Table:
    """Which tensors are which.

    Args:
        normed: whether there is the final norm.
    """
    rules = both(("blocks.norm.experts.vision", "norm")) if normed else []
    rules += both(*((f"blocks.blocks.*.{own}", f"blocks.*.{their}") for own, their in _PARTS.items()))
    project = "blocks.blocks.*.projection.experts.vision"
    rules.append(
        Rule(
            tuple(f"{project}.{name}" for name in _BIASES),
            ("blocks.*.attn.qkv.bias",),
            lambda tensors: tensors[0].chunk(3),
            lambda tensors: [torch.cat(list(tensors))],
        )
    )
    rules += patches("pictures.patches.project", "patch_embed.proj")
    return Table(
        "BEiT-3 of timm", [*rules, *leading(("pictures.class_token", "cls_token")), *placed("pictures.", "pos_embed")]
    )


def theirs_to_ours(theirs: Mapping[str, Tensor], config: Beit3Config) -> dict[str, Tensor]:
    """Their tensors under our names: the vision side, and the final norm if theirs is before pooling.

    Raises:
        WeightsError: naming tensors that are missing, or that nothing here accounts for.
    """
    found = table("norm.weight" in theirs)
    with torch.device("meta"):  # names alone are wanted
        own = [name for name in Beit3(config).state_dict() if found.has(name)]
    return found.read(theirs, own)[0]


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
    found = table(normed)
    return found.write({name: each for name, each in ours.items() if found.has(name)})


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
