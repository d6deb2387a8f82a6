"""A part of a model of the `transformers` library, by itself: `hf:NAME#image` a picture encoder, `hf:NAME#text` a text encoder.

For models that are no method here their parts are what can be had: FLAVA (Singh et al., 2022, arXiv 2112.04482), ALIGN (Jia et al., 2021,
arXiv 2102.05918; its EfficientNet is no network here, its BERT is) and BridgeTower (Xu et al., 2023, arXiv 2206.08657). What joins the
parts there, FLAVA's multimodal encoder and BridgeTower's cross-modal layers, has no counterpart and is left behind, by name. Of CLIP and
Chinese CLIP a tower can be taken alone too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import bert_tables, open_clip_folder, transformers_clip
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill
from multiway.hub.rules import Rule, both, leading, patches, placed, same, under
from multiway.hub.tokenizer_files import read_tokenizer
from multiway.hub.transformers_bert import offset_positions, text_config
from multiway.hub.transformers_folder import open_folder, read_config, read_tensors
from multiway.hub.transformers_view import read_view
from multiway.hub.vit_tensors import Names, blocks, blocks_of, grid_sides, require_plain, stripped, tower
from multiway.methods.bert import Bert, BertConfig
from multiway.methods.picture_encoder import PictureEncoder, PictureEncoderConfig
from multiway.nn.vit import VisionConfig

__all__ = ["PARTS", "from_part", "from_transformers"]

Config = PictureEncoderConfig | BertConfig


@dataclass(frozen=True)
class Part:
    """A tower of theirs.

    Attributes:
        root: what its tensors' names begin with.
        inside: the part of their `config.json` that is about it.
        config: ours from that part.
        rules: which tensors are which, below the root.
    """

    root: str
    inside: str
    config: Callable[[Mapping[str, Any]], Config]
    rules: Callable[[Config], Iterable[Rule]]


_LEARNING = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # a text encoder here may have dropout
_BRIDGE = {
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
}  # where BridgeTower leaves them out


def _flava_picture(theirs: Mapping[str, Any]) -> Config:
    require_plain(theirs, "FLAVA")
    sides = blocks_of(theirs, theirs.get("intermediate_size", 3072), 1e-12)
    return PictureEncoderConfig(VisionConfig(**grid_sides(theirs, 224, 16), **sides), theirs.get("mask_token", True))


def _flava_tower(config: Config) -> list[Rule]:
    assert isinstance(config, PictureEncoderConfig) and isinstance(config.backbone, VisionConfig)
    return [*tower(config.backbone, Names()), *leading(("mask_token", "embeddings.mask_token"))]


def _flava_words(theirs: Mapping[str, Any]) -> Config:
    require_plain({**theirs, **_LEARNING}, "FLAVA")
    return BertConfig(replace(text_config(theirs), norm="pre"), head=False)


def _flava_text(config: Config) -> list[Rule]:
    inner = blocks("text.transformer.blocks.*", "encoder.layer.*", Names())
    return [*bert_tables.embedding("text.embed", "embeddings"), *inner, *both(("text.transformer.norm", "layernorm"))]


def _bridge_picture(theirs: Mapping[str, Any]) -> Config:
    if not theirs.get("share_layernorm", True):
        raise WeightsError("this BridgeTower has a last norm for each block (share_layernorm=False); expected one")
    width, layers = theirs.get("hidden_size", 768), theirs.get("num_hidden_layers", 12)
    stated = {"image_size": theirs.get("image_size", 288), "patch_size": theirs.get("patch_size", 16), "width": width,
              "layers": layers - bool(theirs.get("remove_last_layer", False))}  # fmt: skip
    made = open_clip_folder.picture(stated, "quick_gelu") | {"epsilon": theirs.get("layer_norm_eps", 1e-5)}
    return PictureEncoderConfig(VisionConfig(**made))


def _bridge_tower(config: Config) -> list[Rule]:
    return [
        *same(("backbone.class_token", "embeddings.class_embedding")),
        *patches("backbone.patches.project", "embeddings.patch_embedding"),
        *placed("backbone.", "embeddings.position_embedding.weight", batched=False),
        *both(("backbone.pre_norm", "ln_pre"), ("backbone.transformer.norm", "ln_post")),
        *open_clip_folder.resblocks("backbone.transformer", "transformer"),
    ]


def _words(family: str, **defaults: Any) -> Callable[[Mapping[str, Any]], Config]:
    return lambda theirs: BertConfig(text_config(defaults | dict(theirs), family), head=False)


def _bert(config: Config) -> list[Rule]:
    inner = bert_tables.blocks("text.transformer.blocks", "encoder.layer")
    return [*bert_tables.embedding("text.embed", "embeddings"), *inner]


def _roberta(config: Config) -> list[Rule]:
    return [*offset_positions("text.embed.positions", "embeddings.position_embeddings.weight"), *_bert(config)]


def _clip_picture(theirs: Mapping[str, Any]) -> Config:
    return PictureEncoderConfig(transformers_clip.picture_config(dict(theirs)))


def _clip_tower(config: Config) -> list[Rule]:
    return transformers_clip.clip_picture("backbone", "")


PARTS: dict[str, dict[str, Part]] = {
    "flava": {
        "image": Part("image_model.", "image_config", _flava_picture, _flava_tower),
        "text": Part("text_model.", "text_config", _flava_words, _flava_text),
    },
    "align": {"text": Part("text_model.", "text_config", _words("bert"), _bert)},
    "bridgetower": {
        "image": Part("vision_model.visual.", "vision_config", _bridge_picture, _bridge_tower),
        "text": Part("text_model.", "text_config", _words("roberta", **_BRIDGE), _roberta),
    },
    "clip": {"image": Part("vision_model.", "vision_config", _clip_picture, _clip_tower)},
    "chinese_clip": {
        "image": Part("vision_model.", "vision_config", _clip_picture, _clip_tower),
        "text": Part("text_model.", "text_config", _words("bert"), _bert),
    },
}
_VIEWS = {
    "flava": ViewSpec(224, "squash"),
    "bridgetower": ViewSpec(288),
    "clip": ViewSpec(224),
    "chinese_clip": ViewSpec(224),
}


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """Refused: the whole of such a model is no method here.

    Raises:
        WeightsError: always, naming its parts.
    """
    folder = open_folder(source)
    kind = read_config(folder)["model_type"]
    parts = " or ".join(f"{folder}#{part}" for part in PARTS[kind])
    raise WeightsError(f"{folder} holds a model of type {kind!r}, which is no method here; of its parts load {parts}")


def from_part(source: str, part: str, allow: Sequence[str] = ()) -> Model:
    """One part of a model, as a picture encoder or a BERT without a head.

    Args:
        source: a folder in their layout, or its name on the hub.
        part: `image` or `text`.
        allow: see `hub/accounting.py`.

    Raises:
        WeightsError: if the model has no such part here, or a tensor of the part is unaccounted for.
    """
    folder = open_folder(source)
    theirs = read_config(folder)
    kind = theirs.get("model_type", "clip")
    if part not in PARTS.get(kind, {}):
        there = ", ".join(f"{name}#{each}" for name, parts in PARTS.items() for each in parts)
        raise WeightsError(
            f"of a model of type {kind!r} there is no part {part!r} to be loaded by itself; there are: {there}"
        )
    wanted = PARTS[kind][part]
    config = wanted.config(theirs.get(wanted.inside) or {})
    method = PictureEncoder(config) if isinstance(config, PictureEncoderConfig) else Bert(config)
    apart = [
        (f"^(?!{re.escape(wanted.root)})", "of other parts"),
        (f"^{re.escape(wanted.root)}pooler\\.", "a linear map and tanh on the first token"),
    ]
    table = Table(f"{part} of {kind}", under(wanted.root, wanted.rules(config)), apart=apart)
    report = fill(method, table, stripped(read_tensors(folder), kind), str(folder), allow)
    if isinstance(config, BertConfig):
        processor = Processor(ViewSpec(), read_tokenizer(folder, config.text.context))
    else:
        assert isinstance(config.backbone, VisionConfig)
        default = replace(_VIEWS[kind], size=config.backbone.size)
        processor = Processor(read_view(folder, default, squeezes=kind == "flava"), None)
    return Model(method, processor, report=report)
