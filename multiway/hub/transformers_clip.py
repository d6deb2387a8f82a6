"""CLIP checkpoints of the `transformers` library, in and out.

Their layout keeps query, key and value apart, the patch embedding as a convolution and the class token's position in
one table with the patches'; ours merges the first and splits the last. Nothing is computed, so the round trip is exact
to the bit. Activation, epsilon, normalisation, resolution and tokeniser come along with the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill, renamed, state_of
from multiway.hub.rules import Rule, both, joined, patches, placed, same
from multiway.hub.tokenizer_files import read_tokenizer, write_tokenizer
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
from multiway.methods.clip import Clip, ClipConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

__all__ = [
    "TABLE",
    "blocks",
    "clip_config",
    "clip_picture",
    "from_transformers",
    "picture_config",
    "their_picture",
    "theirs_to_ours",
    "to_transformers",
]


def blocks(ours: str, theirs: str) -> list[Rule]:
    """The blocks of CLIP's and SigLIP's towers."""
    own, their = f"{ours}.blocks.*", f"{theirs}.layers.*"
    return [
        *joined(f"{own}.attention.qkv", their + ".self_attn.{}_proj", "qkv"),
        *both(
            (f"{own}.attention_norm", f"{their}.layer_norm1"),
            (f"{own}.attention.out", f"{their}.self_attn.out_proj"),
            (f"{own}.mlp_norm", f"{their}.layer_norm2"),
            (f"{own}.mlp.up", f"{their}.mlp.fc1"),
            (f"{own}.mlp.down", f"{their}.mlp.fc2"),
        ),
    ]


def clip_picture(ours: str, theirs: str) -> list[Rule]:
    """The picture's tower; `theirs` may be empty."""
    theirs = f"{theirs}." if theirs else ""
    return [
        *same((f"{ours}.class_token", f"{theirs}embeddings.class_embedding")),
        *patches(f"{ours}.patches.project", f"{theirs}embeddings.patch_embedding"),
        *placed(f"{ours}.", f"{theirs}embeddings.position_embedding.weight", batched=False),
        *both(
            (f"{ours}.pre_norm", f"{theirs}pre_layrnorm"),  # their spelling
            (f"{ours}.transformer.norm", f"{theirs}post_layernorm"),
        ),
        *blocks(f"{ours}.transformer", f"{theirs}encoder"),
    ]


TABLE = Table(
    "CLIPModel",
    [
        *same(
            ("log_scale", "logit_scale"),
            ("image_projection.weight", "visual_projection.weight"),
            ("text_projection.weight", "text_projection.weight"),
            ("text.embed.words.weight", "text_model.embeddings.token_embedding.weight"),
            ("text.embed.positions", "text_model.embeddings.position_embedding.weight"),
        ),
        *clip_picture("image", "vision_model"),
        *both(("text.transformer.norm", "text_model.final_layer_norm")),
        *blocks("text.transformer", "text_model.encoder"),
    ],
)


def _blocks_config(part: dict[str, Any], width: int, heads: int) -> dict[str, Any]:
    """Fields of our blocks from a part of their config."""
    width = part.get("hidden_size", width)
    return {
        "width": width,
        "layers": part.get("num_hidden_layers", 12),
        "heads": part.get("num_attention_heads", heads),
        "mlp_ratio": mlp_ratio(width, part.get("intermediate_size", 4 * width)),
        "activation": activation_of(part.get("hidden_act", "quick_gelu")),
        "epsilon": part.get("layer_norm_eps", 1e-5),
    }


def picture_config(vision: dict[str, Any]) -> VisionConfig:
    """Our picture's tower from their `vision_config`."""
    return VisionConfig(
        size=vision.get("image_size", 224),
        patch=vision.get("patch_size", 32),
        pool="class",
        pre_norm=True,
        patch_bias=False,
        **_blocks_config(vision, 768, 12),
    )


def clip_config(theirs: dict[str, Any]) -> ClipConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (ViT-B/32)."""
    text = theirs.get("text_config") or {}
    eos = text.get("eos_token_id", 49407)
    words = TextConfig(
        vocabulary=text.get("vocab_size", 49408),
        context=text.get("max_position_embeddings", 77),
        causal=True,
        pool="eos",
        # transformers reads 2 as "an old config whose end token is really the greatest id".
        eos_id=None if eos == 2 else eos,
        **_blocks_config(text, 512, 8),
    )
    image = picture_config(theirs.get("vision_config") or {})
    return ClipConfig(image=image, text=words, embedding=theirs.get("projection_dim", 512))


def theirs_to_ours(theirs: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """Their tensors under our names, of a model in memory; see `renamed`."""
    return renamed(TABLE, theirs, lambda: Clip(config))


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A CLIP from a folder in `transformers` layout, or by its name on the hub (fetched by `huggingface_hub`).

    Raises:
        WeightsError: if a file is missing, it is another architecture, or a tensor is unaccounted for.
    """
    folder = open_folder(source)
    theirs = read_config(folder)
    if theirs.get("model_type", "clip") != "clip":
        raise WeightsError(f"{folder} holds a {theirs['model_type']!r} model; expected `clip`")
    config = clip_config(theirs)
    assert isinstance(config.image, VisionConfig)
    method = Clip(config)
    report = fill(method, TABLE, read_tensors(folder), str(folder), allow)
    # CLIP's own normalisation and resize are ViewSpec's defaults.
    view = read_view(folder, ViewSpec(size=config.image.size))
    return Model(method, Processor(view, read_tokenizer(folder, config.text.context)), report=report)


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `transformers.CLIPModel.from_pretrained` and `CLIPProcessor` read.

    Raises:
        WeightsError: if the model is not a CLIP with a ViT and a causal text tower, which is all that `CLIPModel` can be.
    """
    method = model.method
    if not isinstance(method, Clip) or not isinstance(method.config.image, VisionConfig):
        raise WeightsError("only a CLIP with a ViT image tower has a counterpart in transformers")
    config, image, text = method.config, method.config.image, method.config.text
    assert isinstance(image, VisionConfig)
    if image.pool != "class" or not image.pre_norm or image.patch_bias or image.stem != "patch":
        raise WeightsError(
            "transformers' CLIP has a class token, a norm before the blocks and patches projected without bias; this model differs"
        )
    if (text.causal, text.pool, text.norm, text.types, text.embedding_norm) != (True, "eos", "pre", 0, False):
        raise WeightsError(
            "transformers' CLIP reads its text from left to right, with norms before each part, at the end token; this model differs"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, TABLE.write(state_of(method)))
    write_json(folder / "config.json", _their_config(config, model.processor))
    write_view(folder, model.processor.view, "CLIPImageProcessor")
    write_tokenizer(folder, model.processor)


def _their_config(config: ClipConfig, processor: Processor) -> dict[str, Any]:
    assert isinstance(config.image, VisionConfig)
    special = processor.tokenizer.special if processor.tokenizer else {}
    eos = 2 if config.text.eos_id is None else config.text.eos_id
    text = {"vocab_size": config.text.vocabulary, "max_position_embeddings": config.text.context, "eos_token_id": eos,
            "bos_token_id": special.get("bos", 0), "pad_token_id": special.get("pad", 1)}  # fmt: skip
    dim = {"projection_dim": config.embedding}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        **dim,
        "text_config": {"model_type": "clip_text_model", **_their_blocks(config.text), **text, **dim},
        "vision_config": {"model_type": "clip_vision_model", **their_picture(config.image), **dim},
    }


def their_picture(image: VisionConfig) -> dict[str, Any]:
    """Their fields of the picture's tower."""
    return {**_their_blocks(image), "image_size": image.size, "patch_size": image.patch, "num_channels": 3}


def _their_blocks(part: VisionConfig | TextConfig) -> dict[str, Any]:
    return {
        "hidden_size": part.width, "num_hidden_layers": part.layers, "num_attention_heads": part.heads,
        "intermediate_size": int(part.width * part.mlp_ratio), "layer_norm_eps": part.epsilon,
        "hidden_act": their_activation(part.activation),
    }  # fmt: skip
