"""CoCa checkpoints of the `open_clip` library, in and out: `coca_ViT-B-32`, `coca_ViT-L-14` and their like.

Theirs is not quite the paper's CoCa, and ours takes its form where a config says so: one pooler for both losses
(`pooler="single"`), attention to the picture in blocks of its own (`cross="after"`), and the mask of [CLS] one place late, as it
was when their weights were trained (`class_mask="legacy"`). Their two other poolers, `cascade` and `parallel`, norm the
picture's tokens where ours and the paper's norm what is pooled; no weights of them are published, and they are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.open_clip_clip import vit
from multiway.hub.open_clip_folder import picture, read_folder, resblocks, view_of, write_folder
from multiway.hub.renaming import Table, fill, renamed
from multiway.hub.rules import Many, Rule, both, joined, same, turned
from multiway.hub.tokenizer_files import read_tokenizer
from multiway.methods.coca import Coca, CocaConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

__all__ = ["coca_config", "from_open_clip", "table", "theirs_to_ours", "to_open_clip"]

_POOL, _OUR_POOL = "visual.attn_pool.attn", "pools.caption.attention"


def table(config: CocaConfig) -> Table:
    """Which tensors are which."""
    own, their = "multimodal.crosses.*", "text_decoder.cross_attn.*"
    rules = [
        *same(
            ("unimodal.embed.words.weight", "text.token_embedding.weight"),
            ("unimodal.class_token", "text.cls_emb"),
            ("pools.caption.queries", "visual.attn_pool.query"),
            ("log_scale", "logit_scale"),
        ),
        # What they call the ViT's last norm is the pooler's.
        *(rule for rule in vit("image.", "visual.") if "visual.ln_post" not in rule.theirs[0]),
        *both(
            ("pools.caption.query_norm", "visual.attn_pool.ln_q"),
            ("pools.caption.memory_norm", "visual.attn_pool.ln_k"),
            ("pools.caption.output_norm", "visual.ln_post"),
            (f"{_OUR_POOL}.out", f"{_POOL}.out_proj"),
            ("unimodal.class_norm", "text.ln_final"),
            ("multimodal.norm", "text_decoder.ln_final"),
            (f"{own}.norm", f"{their}.ln_1"),
            (f"{own}.memory_norm", f"{their}.ln_1_kv"),
            (f"{own}.attention.out", f"{their}.attn.out_proj"),
            (f"{own}.mlp_norm", f"{their}.ln_2"),
            (f"{own}.mlp.up", f"{their}.mlp.c_fc"),
            (f"{own}.mlp.down", f"{their}.mlp.c_proj"),
        ),
        *resblocks("unimodal.transformer", "text.transformer"),
        *resblocks("multimodal", "text_decoder"),
        *_cut(f"{own}.attention", f"{their}.attn"),
        *turned(
            ("image_projection.weight", "visual.proj"),
            ("text_projection.weight", "text.text_projection"),
            ("vocabulary.weight", "text_decoder.text_projection"),
        ),
        Rule(
            ("unimodal.embed.positions", "unimodal.class_position"),
            ("text.positional_embedding",),
            lambda tensors: [tensors[0][:-1], tensors[0][-1]],
            lambda tensors: [torch.cat([tensors[0], tensors[1][None]])],
        ),
    ]
    weight, bias = _cut(_OUR_POOL, _POOL)
    rules.append(bias)
    if config.image.width == config.text.width:
        rules.append(weight)
    else:  # projections from two widths cannot be one matrix
        rules += same((f"{_OUR_POOL}.query.weight", f"{_POOL}.q_proj_weight"))
        weight = joined(f"{_OUR_POOL}.key_value", "{}", "kv")[0]
        rules.append(replace(weight, theirs=tuple(f"{_POOL}.{part}_proj_weight" for part in "kv")))
    return Table("CoCa of open_clip", rules)


def _cut(ours: str, theirs: str) -> list[Rule]:
    """An attention over a memory, whose three projections they merge and we cut after the queries'."""

    def read(tensors: Many) -> Many:
        query, key, value = tensors[0].chunk(3)
        return [query, torch.cat([key, value])]

    return [
        Rule(
            (f"{ours}.query.{each}", f"{ours}.key_value.{each}"),
            (f"{theirs}.in_proj_{each}",),
            read,
            lambda tensors: [torch.cat(list(tensors))],
        )
        for each in ("weight", "bias")
    ]


def coca_config(theirs: Mapping[str, Any]) -> CocaConfig:
    """Our config from their `model_cfg`, whose missing fields mean `open_clip`'s defaults.

    Raises:
        WeightsError: if the model is built in a way that no CoCa here is.
    """
    vision, text, joint = (theirs.get(name) or {} for name in ("vision_cfg", "text_cfg", "multimodal_cfg"))
    embedding, width = theirs["embed_dim"], text.get("width", 512)
    plain = {
        "vision_cfg.attentional_pool": (vision.get("attentional_pool", False), True),
        "text_cfg.embed_cls": (text.get("embed_cls", False), True),
        "text_cfg.width": (width, embedding),
        "multimodal_cfg.width": (joint.get("width", 512), width),
        "multimodal_cfg.heads": (joint.get("heads", 8), text.get("heads", 8)),
        "text_cfg.mlp_ratio": (float(text.get("mlp_ratio", 4.0)), 4.0),
        "text_cfg.hf_model_name": (text.get("hf_model_name"), None),
        "vision_cfg.timm_model_name": (vision.get("timm_model_name"), None),
        "vision_cfg.pool_type": (vision.get("pool_type", "tok"), "tok"),
        "init_logit_bias": (theirs.get("init_logit_bias"), None),
    }
    for name, (given, expected) in plain.items():
        if given != expected:
            raise WeightsError(
                f"{name} is {given!r}; of open_clip's CoCas those with {expected!r} can be converted: the released "
                "coca_ViT-B-32 and coca_ViT-L-14 are such"
            )
    activation = "quick_gelu" if theirs.get("quick_gelu", False) else "gelu"
    return CocaConfig(
        image=VisionConfig(**picture(vision, activation)),
        text=TextConfig(
            vocabulary=text.get("vocab_size", 49408),
            context=text.get("context_length", 77),
            width=width,
            layers=text.get("layers", 12),
            heads=text.get("heads", 8),
            activation=activation,  # type: ignore[arg-type]
            pool="last",
        ),
        multimodal_layers=joint.get("layers", 12),
        pooler="single",
        queries=vision.get("attn_pooler_queries", 256),
        pooler_heads=vision.get("attn_pooler_heads", 8),
        class_mask="legacy",
        cross="after",
        embedding=embedding,
        start=text.get("vocab_size", 49408) - 2,
        end=text.get("vocab_size", 49408) - 1,
        pad=text.get("pad_id", 0),
    )


def theirs_to_ours(theirs: Mapping[str, Tensor], config: CocaConfig) -> dict[str, Tensor]:
    """Their tensors under our names, of a model in memory; see `renamed`."""
    return renamed(table(config), theirs, lambda: Coca(config))


def from_open_clip(folder: Path, allow: Sequence[str] = ()) -> Model:
    """A CoCa from a folder as `open_clip` keeps it on the hub: `open_clip_config.json` and the weights.

    Raises:
        WeightsError: if a file is missing, the model is no CoCa that can be converted, or a tensor is unaccounted for.
    """
    stated, tensors = read_folder(folder)
    config = coca_config(stated.get("model_cfg", {}))
    method = Coca(config)
    report = fill(method, table(config), tensors, str(folder), allow)
    view = view_of(stated, config.image.size)
    return Model(method, Processor(view, read_tokenizer(folder, config.text.context)), report=report)


def to_open_clip(model: Model, folder: Path) -> None:
    """Write a folder that `open_clip` reads (`create_model("local-dir:...")`).

    Raises:
        WeightsError: if the model is not of the form that `open_clip` has.
    """
    method = model.method
    if not isinstance(method, Coca):
        raise WeightsError(f"only a CoCa can be written as open_clip's; given {type(method).__name__}")
    config, image, text = method.config, method.config.image, method.config.text
    form = (config.pooler, config.cross, config.class_mask, config.class_token, image.stem, image.pool)
    built = image.pre_norm, image.patch_bias, image.activation == text.activation, config.embedding == text.width
    activations = ("gelu", "quick_gelu")
    if (
        form != ("single", "after", "legacy", "last", "patch", "class")
        or built != (True, False, True, True)
        or image.activation not in activations
        or text.mlp_ratio != 4.0
    ):
        raise WeightsError(
            "open_clip's CoCa has pooler='single', cross='after', class_mask='legacy', an image tower as CLIP's "
            "(stem='patch', pool='class', pre_norm=True, patch_bias=False), text.mlp_ratio=4 and embedding=text.width; this "
            "model differs"
        )
    write_folder(folder, table(config).write(method.state_dict()), _their_config(config), model.processor)


def _their_config(config: CocaConfig) -> dict[str, Any]:
    image, text = config.image, config.text
    words = {"context_length": text.context, "vocab_size": text.vocabulary, "width": text.width, "heads": text.heads}
    return {
        "embed_dim": config.embedding,
        "quick_gelu": text.activation == "quick_gelu",
        "vision_cfg": {
            "image_size": image.size, "layers": image.layers, "width": image.width, "patch_size": image.patch,
            "head_width": image.width // image.heads, "mlp_ratio": image.mlp_ratio, "attentional_pool": True,
            "attn_pooler_queries": config.queries, "attn_pooler_heads": config.pooler_heads, "output_tokens": True,
        },
        "text_cfg": {**words, "layers": text.layers, "embed_cls": True, "output_tokens": True, "pad_id": config.pad},
        "multimodal_cfg": {**words, "layers": config.multimodal_layers},
        "custom_text": True,
    }  # fmt: skip
