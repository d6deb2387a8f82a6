"""SigLIP checkpoints of the `transformers` library, in and out.

Their layout keeps query, key and value of the towers apart, ours merges them; their pooling head, which is torch's own
attention, merges them where ours keeps the query apart. Nothing is computed, so the round trip is exact to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError, assign
from multiway.hub.model import Model
from multiway.hub.transformers_folder import (
    activation_of,
    open_folder,
    read_config,
    read_tensors,
    read_tokenizer,
    read_view,
    resample_number,
    their_activation,
    write_json,
    write_tensors,
    write_tokenizer,
)
from multiway.methods.siglip import Siglip, SiglipConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

__all__ = ["from_transformers", "ours_to_theirs", "siglip_config", "theirs_to_ours", "to_transformers"]

_TOWERS = (("image", "vision_model"), ("text", "text_model"))
_HEAD = "vision_model.head"
_PATCH = "vision_model.embeddings.patch_embedding"


def _renamed(config: SiglipConfig) -> Iterator[tuple[str, str]]:
    """(ours, theirs) for tensors that differ in name alone."""
    yield "image.positions", "vision_model.embeddings.position_embedding.weight"
    yield "text.embed.words.weight", "text_model.embeddings.token_embedding.weight"
    yield "text.embed.positions", "text_model.embeddings.position_embedding.weight"
    yield "image.patches.project.bias", f"{_PATCH}.bias"
    pairs = [
        ("image.transformer.norm", "vision_model.post_layernorm"),
        ("text.transformer.norm", "text_model.final_layer_norm"),
        ("text_projection", "text_model.head"),
        ("image_pool.attention.out", f"{_HEAD}.attention.out_proj"),
        ("image_pool.mlp_norm", f"{_HEAD}.layernorm"),
        ("image_pool.mlp.up", f"{_HEAD}.mlp.fc1"),
        ("image_pool.mlp.down", f"{_HEAD}.mlp.fc2"),
    ]
    for ours, theirs, _ in _layers(config):
        pairs += [
            (f"{ours}.attention_norm", f"{theirs}.layer_norm1"),
            (f"{ours}.mlp_norm", f"{theirs}.layer_norm2"),
            (f"{ours}.attention.out", f"{theirs}.self_attn.out_proj"),
            (f"{ours}.mlp.up", f"{theirs}.mlp.fc1"),
            (f"{ours}.mlp.down", f"{theirs}.mlp.fc2"),
        ]
    for ours, theirs in pairs:
        for kind in ("weight", "bias"):
            yield f"{ours}.{kind}", f"{theirs}.{kind}"


def _layers(config: SiglipConfig) -> Iterator[tuple[str, str, list[str]]]:
    """(our block, their layer, their query, key and value) of both towers."""
    for own, their in _TOWERS:
        for layer in range((config.image if own == "image" else config.text).layers):
            theirs = f"{their}.encoder.layers.{layer}"
            yield f"{own}.transformer.blocks.{layer}", theirs, [f"{theirs}.self_attn.{part}_proj" for part in "qkv"]


def theirs_to_ours(theirs: dict[str, Tensor], config: SiglipConfig) -> dict[str, Tensor]:
    """Tensors of a `transformers.SiglipModel` under our names.

    Raises:
        WeightsError: naming tensors that are missing, or that nothing here accounts for.
    """
    # Position numbers 0, 1, 2, ... that old versions stored; they carry nothing.
    left = {name: tensor for name, tensor in theirs.items() if not name.endswith(".position_ids")}
    try:
        ours = {own: left.pop(their) for own, their in _renamed(config)}
        for block, _, parts in _layers(config):
            for kind in ("weight", "bias"):
                ours[f"{block}.attention.qkv.{kind}"] = torch.cat([left.pop(f"{part}.{kind}") for part in parts])
        ours["image.patches.project.weight"] = left.pop(f"{_PATCH}.weight").flatten(1)
        ours["image_pool.queries"] = left.pop(f"{_HEAD}.probe")[0]
        for kind in ("weight", "bias"):
            merged = left.pop(f"{_HEAD}.attention.in_proj_{kind}")
            query, rest = merged.split([config.image.width, 2 * config.image.width])
            ours[f"image_pool.attention.query.{kind}"], ours[f"image_pool.attention.key_value.{kind}"] = query, rest
        ours["log_scale"], ours["bias"] = left.pop("logit_scale").reshape(()), left.pop("logit_bias").reshape(())
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a SiglipModel?") from error
    if left:
        raise WeightsError(f"the checkpoint has tensors that a SiglipModel does not: {', '.join(sorted(left)[:8])}")
    return ours


def ours_to_theirs(ours: dict[str, Tensor], config: SiglipConfig) -> dict[str, Tensor]:
    """Our tensors under the names of a `transformers.SiglipModel`; the inverse of `theirs_to_ours`."""
    theirs = {their: ours[own] for own, their in _renamed(config)}
    for block, _, parts in _layers(config):
        for kind in ("weight", "bias"):
            merged = ours[f"{block}.attention.qkv.{kind}"].chunk(3)
            theirs |= {f"{part}.{kind}": tensor for part, tensor in zip(parts, merged, strict=True)}
    patch = config.image.patch
    theirs[f"{_PATCH}.weight"] = ours["image.patches.project.weight"].unflatten(1, (3, patch, patch))
    theirs[f"{_HEAD}.probe"] = ours["image_pool.queries"][None]
    for kind in ("weight", "bias"):
        pool = [ours[f"image_pool.attention.{part}.{kind}"] for part in ("query", "key_value")]
        theirs[f"{_HEAD}.attention.in_proj_{kind}"] = torch.cat(pool)
    theirs["logit_scale"], theirs["logit_bias"] = ours["log_scale"].reshape(1), ours["bias"].reshape(1)
    return theirs


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
            "mlp_ratio": part.get("intermediate_size", 3072) / width,
            "activation": activation_of(part.get("hidden_act", "gelu_pytorch_tanh")),
            "epsilon": part.get("layer_norm_eps", 1e-6),
        }

    image = VisionConfig(
        size=vision.get("image_size", 224), patch=vision.get("patch_size", 16), pool="mean", **blocks(vision)
    )
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


def from_transformers(source: str) -> Model:
    """A SigLIP from a folder in `transformers` layout, or by its name on the hub (fetched by `huggingface_hub`).

    Raises:
        WeightsError: if a file is missing, it is another architecture, or a tensor is unaccounted for.
    """
    folder = open_folder(source)
    theirs = read_config(folder)
    if theirs.get("model_type") != "siglip":
        raise WeightsError(f"{folder} holds a {theirs.get('model_type')!r} model; expected `siglip`")
    config = siglip_config(theirs)
    method = Siglip(config)
    assign(method, theirs_to_ours(read_tensors(folder), config), str(folder))
    view = read_view(folder, ViewSpec(size=config.image.size, crop="squash", mean=(0.5,) * 3, std=(0.5,) * 3))
    return Model(method, Processor(view, read_tokenizer(folder, config.text.context)))


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
    write_tensors(folder, ours_to_theirs(method.state_dict(), method.config))
    write_json(folder / "config.json", _their_config(method.config))
    view = model.processor.view
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "SiglipImageProcessor", "do_resize": True, "do_rescale": True,
            "size": {"height": view.size, "width": view.size}, "rescale_factor": 1 / 255, "do_normalize": True,
            "image_mean": list(view.mean), "image_std": list(view.std), "resample": resample_number(view),
            "do_convert_rgb": True,
        },
    )  # fmt: skip
    write_tokenizer(folder, model.processor)


def _their_config(config: SiglipConfig) -> dict[str, Any]:
    def blocks(part: VisionConfig | TextConfig) -> dict[str, Any]:
        return {
            "hidden_size": part.width, "num_hidden_layers": part.layers, "num_attention_heads": part.heads,
            "intermediate_size": int(part.width * part.mlp_ratio), "layer_norm_eps": part.epsilon,
            "hidden_act": their_activation(part.activation),
        }  # fmt: skip

    text = {"vocab_size": config.text.vocabulary, "max_position_embeddings": config.text.context,
            "pad_token_id": config.pad_id, "projection_size": config.image.width}  # fmt: skip
    vision = {"image_size": config.image.size, "patch_size": config.image.patch, "num_channels": 3}
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": {"model_type": "siglip_text_model", **blocks(config.text), **text},
        "vision_config": {"model_type": "siglip_vision_model", **blocks(config.image), **vision},
    }
