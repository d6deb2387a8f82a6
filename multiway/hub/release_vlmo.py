"""VLMo's checkpoints as its authors' code writes them (microsoft/unilm, `vlmo`): base and large, with relative positions.

Their one table of relative positions has the displacements of words for a longer text than the model reads, running the other way; ours has
those that are used. Positions of words are in it and are never read there; what is added to all words alike, BERT's first segment type, is
here in their place. Of base-plus, which has absolute
positions, there is no counterpart.

The word head there has a matrix of its own, and here it is the word embedding: where they differ the head has to be left by name, with
`--allow '^(mlm_score|word_head)\\.'`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import bert_tables
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill
from multiway.hub.rules import both, leading, one_way, patches, same
from multiway.hub.timm_networks import count
from multiway.hub.tokenizer_files import read_tokenizer
from multiway.hub.transformers_folder import mlp_ratio
from multiway.methods.vlmo import Vlmo, VlmoConfig
from multiway.nn.multiway import MultiwayConfig

__all__ = ["from_state", "table", "vlmo_config"]

_WORDS, _DECODER, _TABLE = (
    "text_embeddings.word_embeddings.weight",
    "mlm_score.decoder.weight",
    "relative_position_bias_table",
)
_OF_CLASS, _ACROSS = 3, 2  # entries of a class token, and between words and patches
_EXPERTS = {"language": "text", "vision": "imag", "fusion": "vl"}


def table(config: VlmoConfig, *, head: bool = True) -> Table:
    """Which tensors are which.

    Args:
        config: of ours.
        head: whether the word head is taken.
    """
    own, their = "blocks.blocks.*", "transformer.blocks.*"
    rules = [
        # Of a text's places nothing is added, and of BERT's segment types always the first.
        *one_way(
            "words.positions",
            [f"text_embeddings.{each}_embeddings.weight" for each in ("position", "token_type")],
            _places,
        ),
        *bert_tables.embedding("words", "text_embeddings"),
        *same(("types.weight", "token_type_embeddings.weight")),
        *patches("pictures.patches.project", "transformer.patch_embed.proj"),
        *leading(("pictures.class_token", "transformer.cls_token")),
        *one_way("positions.table", [_TABLE], lambda each: _ours(each, config)),
        *same(
            (f"{own}.attention_residual.scale", f"{their}.gamma_1"),
            (f"{own}.mlp_residual.scale", f"{their}.gamma_2"),
            (f"{own}.projection.module.query_bias", f"{their}.attn.q_bias"),
            (f"{own}.projection.module.value_bias", f"{their}.attn.v_bias"),
            (f"{own}.projection.module.weight", f"{their}.attn.qkv.weight"),
            ("log_scale.own", "logit_scale"),
            ("log_scale.fusion", "logit_vl_scale"),
        ),
        *both(
            ("blocks.norm.module", "transformer.norm"),
            (f"{own}.attention_norm.module", f"{their}.norm1"),
            (f"{own}.out.module", f"{their}.attn.proj"),
            ("pooler", "pooler.dense"),
            ("match_head", "itm_score.fc"),
        ),
    ]
    for expert, name in _EXPERTS.items():
        rules += both(
            (f"{own}.mlp_norm.experts.{expert}", f"{their}.norm2_{name}"),
            (f"{own}.mlp.experts.{expert}.up", f"{their}.mlp_{name}.fc1"),
            (f"{own}.mlp.experts.{expert}.down", f"{their}.mlp_{name}.fc2"),
        )
    for kind, name in (("own", ""), ("fusion", "vl_")):
        rules += same(
            *((f"{side}_projection.{kind}.weight", f"itc_{name}{side}_proj.fc.weight") for side in ("image", "text"))
        )
    if head:
        rules += bert_tables.word_head("word_head", "mlm_score")
    empty = [*Table.empty, (r"(relative_position_index|token_type_ids)$", "numbers that follow from the sizes")]
    return Table("VLMo of its authors", rules, [(_DECODER, _WORDS)] if head else [], empty)


def _places(places: Tensor, types: Tensor) -> Tensor:
    return types[0].expand_as(places)


def _ours(theirs: Tensor, config: VlmoConfig) -> Tensor:
    """Their table of relative positions as ours: see `nn/relative.py` and their `build_relative_position_embed`."""
    near = (2 * (config.size // config.patch) - 1) ** 2
    first = near + _OF_CLASS + _ACROSS  # of the displacements of words, which say how far the key is after the query
    length = (len(theirs) - first) // 2
    words = theirs[first + length - config.context : first + length + config.context - 3].flip(0)
    return torch.cat([theirs[: near + _OF_CLASS], words, theirs[-_OF_CLASS:], theirs[near + _OF_CLASS : first]])


def vlmo_config(theirs: Mapping[str, Tensor]) -> VlmoConfig:
    """Our config from the shapes of a checkpoint: heads 64 wide, pictures by the count of relative positions.

    Raises:
        WeightsError: if a tensor that shows a size is not there, or positions are absolute.
    """
    if "transformer.pos_embed" in theirs:
        raise WeightsError(
            "this VLMo has absolute positions, as base-plus has, for which there is no counterpart; expected base or large"
        )
    try:
        vocabulary, width = theirs[_WORDS].shape
        context = len(theirs["text_embeddings.position_embeddings.weight"])
        patch = theirs["transformer.patch_embed.proj.weight"].shape[-1]
        hidden, entries = len(theirs["transformer.blocks.0.mlp_imag.fc1.weight"]), len(theirs[_TABLE])
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a VLMo?") from error
    layers = count(theirs, "transformer.blocks.")
    fused = sum(f"transformer.blocks.{layer}.norm2_vl.weight" in theirs for layer in range(layers))
    # The longest text that their table knows is 196 in all that was released; else the one that leaves a whole grid.
    sides = [math.isqrt(entries - 2 * length - _OF_CLASS - _ACROSS) for length in (196, context)]
    near = next(
        (
            side
            for side, length in zip(sides, (196, context))
            if side % 2 and side**2 + 2 * length + _OF_CLASS + _ACROSS == entries
        ),
        0,
    )
    if not near:
        raise WeightsError(
            f"{_TABLE} has {entries} entries, which are none of a square of patches and texts of 196 or {context} tokens"
        )
    scaled = "transformer.blocks.0.gamma_1" in theirs
    blocks = MultiwayConfig(
        width=width,
        layers=layers,
        heads=max(1, width // 64),
        mlp_ratio=mlp_ratio(width, hidden),
        fusion_layers=fused,
        layer_scale=0.1 if scaled else None,
    )
    return VlmoConfig(
        blocks,
        size=(near + 1) // 2 * patch,
        patch=patch,
        stem="patch",
        vocabulary=vocabulary,
        context=context,
        mlm_weight=0.25,
        hard_until=0.0,
    )


def from_state(theirs: Mapping[str, Tensor], file: Path, allow: Sequence[str] = ()) -> Model:
    """A VLMo from its authors' checkpoint.

    Their tokeniser, BERT's, is not in it: a `tokenizer.json` is looked for beside the file, and without one the model takes token ids.

    Raises:
        WeightsError: if a tensor is unaccounted for.
    """
    config = vlmo_config(theirs)
    method = Vlmo(config)
    head = _DECODER not in theirs or torch.equal(theirs[_DECODER], theirs[_WORDS])
    report = fill(method, table(config, head=head), theirs, str(file), allow, lacks=("pictures.mask_token",))
    view = ViewSpec(config.size, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Model(method, Processor(view, read_tokenizer(file.parent, config.context)), report=report)
