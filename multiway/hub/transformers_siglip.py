"""SigLIP checkpoints of the `transformers` library, in and out.

Their layout keeps query, key and value of the towers apart, ours merges them; their pooling head, which is torch's own
attention, merges them where ours keeps the query apart. Nothing is computed, so the round trip is exact to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill, state_of
from multiway.hub.rules import Many, Rule, both, laid_out, leading, patches, same
from multiway.hub.tokenizer_files import pad_of, read_tokenizer, write_tokenizer
from multiway.hub.transformers_clip import blocks
from multiway.hub.transformers_folder import (
    activation_of,
    mlp_ratio,
    open_folder,
    read_config,
    read_tensors,
    their_activation,
    write_json,
    write_tensors,
)
from multiway.hub.transformers_view import read_view, write_view
from multiway.methods.siglip import Siglip, SiglipConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

__all__ = ["TABLE", "from_transformers", "siglip_config", "to_transformers"]

_HEAD = "vision_model.head"


def _pool(kind: str) -> Rule:
    """Torch's own attention: query, key and value in one tensor, the query apart here."""

    def read(tensors: Many) -> Many:
        width = len(tensors[0]) // 3
        return tensors[0].split([width, 2 * width])

    ours = tuple(f"image_pool.attention.{part}.{kind}" for part in ("query", "key_value"))
    return Rule(ours, (f"{_HEAD}.attention.in_proj_{kind}",), read, lambda tensors: [torch.cat(list(tensors))])


TABLE = Table(
    "SiglipModel",
    [
        *same(
            ("image.positions", "vision_model.embeddings.position_embedding.weight"),
            ("text.embed.words.weight", "text_model.embeddings.token_embedding.weight"),
            ("text.embed.positions", "text_model.embeddings.position_embedding.weight"),
        ),
        *patches("image.patches.project", "vision_model.embeddings.patch_embedding"),
        *both(
            ("image.transformer.norm", "vision_model.post_layernorm"),
            ("text.transformer.norm", "text_model.final_layer_norm"),
            ("text_projection", "text_model.head"),
            ("image_pool.attention.out", f"{_HEAD}.attention.out_proj"),
            ("image_pool.mlp_norm", f"{_HEAD}.layernorm"),
            ("image_pool.mlp.up", f"{_HEAD}.mlp.fc1"),
            ("image_pool.mlp.down", f"{_HEAD}.mlp.fc2"),
        ),
        *blocks("image.transformer", "vision_model.encoder"),
        *blocks("text.transformer", "text_model.encoder"),
        *leading(("image_pool.queries", f"{_HEAD}.probe"), dims=1),
        _pool("weight"),
        _pool("bias"),
        *laid_out("log_scale", "logit_scale", lambda each: each.reshape(()), lambda each: each.reshape(1)),
        *laid_out("bias", "logit_bias", lambda each: each.reshape(()), lambda each: each.reshape(1)),
    ],
)


def siglip_config(theirs: dict[str, Any]) -> SiglipConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (B/16 at 224).

    Raises:
        WeightsError: if the text tower projects to another width than the picture's, which has no projection.
    """
    vision, text = theirs.get("vision_config") or {}, theirs.get("text_config") or {}

    def blocks(part: dict[str, Any]) -> dict[str, Any]:
        width = part.get("hidden_size", 768)
        return {
            "width": width,
            "layers": part.get("num_hidden_layers", 12),
            "heads": part.get("num_attention_heads", 12),
            "mlp_ratio": mlp_ratio(width, part.get("intermediate_size", 3072)),
            "activation": activation_of(part.get("hidden_act", "gelu_pytorch_tanh")),
            "epsilon": part.get("layer_norm_eps", 1e-6),
        }

    size, patch = vision.get("image_size", 224), vision.get("patch_size", 16)
    image = VisionConfig(size=size, patch=patch, pool="mean", edges=size % patch > 0, **blocks(vision))
    words = TextConfig(
        vocabulary=text.get("vocab_size", 32_000),
        context=text.get("max_position_embeddings", 64),
        causal=False,
        pool="last",
        **blocks(text),
    )
    projection = text.get("projection_size") or words.width
    if projection != image.width or not vision.get("vision_use_head", True):
        raise WeightsError(
            f"the text tower projects to {projection} and pictures are {image.width} wide (pooled: "
            f"{vision.get('vision_use_head', True)}); a SiglipModel compares equal widths, pooled by its head"
        )
    return SiglipConfig(image=image, text=words, pad_id=text.get("pad_token_id", 1))


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A SigLIP from a folder in `transformers` layout, or by its name on the hub (fetched by `huggingface_hub`).

    Raises:
        WeightsError: if a file is missing, it is another architecture, or a tensor is unaccounted for.
    """
    folder = open_folder(source)
    theirs = read_config(folder)
    if theirs.get("model_type") != "siglip":
        raise WeightsError(f"{folder} holds a {theirs.get('model_type')!r} model; expected `siglip`")
    config = siglip_config(theirs)
    # Where SigLIP 2 says nothing its config means 1, and texts are filled up with its tokeniser's 0.
    words = read_tokenizer(folder, config.text.context)
    config = replace(config, pad_id=pad_of(folder, words, config.pad_id))
    method = Siglip(config)
    report = fill(method, TABLE, read_tensors(folder), str(folder), allow)
    view = read_view(folder, ViewSpec(size=config.image.size, crop="squash", mean=(0.5,) * 3, std=(0.5,) * 3))
    return Model(method, Processor(view, words), report=report)


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `transformers.SiglipModel.from_pretrained` and `SiglipImageProcessor` read.

    Texts have to be filled up to the context by whoever calls it: `tokenizer(texts, padding="max_length")`.

    Raises:
        WeightsError: if the model is none, or has a stem that `SiglipModel` cannot have.
    """
    method = model.method
    if not isinstance(method, Siglip) or method.config.image.stem != "patch":
        raise WeightsError(
            f"given {type(method).__name__}; only a SigLIP whose patches are projected as they are (image.stem='patch') has "
            "a counterpart in transformers: train with --method.image.stem patch"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, TABLE.write(state_of(method)))
    write_json(folder / "config.json", _their_config(method.config, model.processor))
    write_view(folder, model.processor.view, "SiglipImageProcessor")
    write_tokenizer(folder, model.processor)


def _their_config(config: SiglipConfig, processor: Processor | None = None) -> dict[str, Any]:
    def blocks(part: VisionConfig | TextConfig) -> dict[str, Any]:
        return {
            "hidden_size": part.width, "num_hidden_layers": part.layers, "num_attention_heads": part.heads,
            "intermediate_size": int(part.width * part.mlp_ratio), "layer_norm_eps": part.epsilon,
            "hidden_act": their_activation(part.activation),
        }  # fmt: skip

    special = processor.tokenizer.special if processor and processor.tokenizer else {}
    ends = {f"{role}_token_id": special.get(role, config.pad_id) for role in ("bos", "eos")}
    text = {**ends, "vocab_size": config.text.vocabulary, "max_position_embeddings": config.text.context,
            "pad_token_id": config.pad_id, "projection_size": config.image.width}  # fmt: skip
    vision = {"image_size": config.image.size, "patch_size": config.image.patch, "num_channels": 3}
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": {"model_type": "siglip_text_model", **blocks(config.text), **text},
        "vision_config": {"model_type": "siglip_vision_model", **blocks(config.image), **vision},
    }
