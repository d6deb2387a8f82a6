"""CLIP checkpoints of the `transformers` library, in and out.

Their layout keeps query, key and value apart, the patch embedding as a convolution and the class token's position in
one table with the patches'; ours merges the first and splits the last. Nothing is computed, so the round trip is exact
to the bit. Activation, epsilon, normalisation, resolution and tokeniser come along with the weights.
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
from multiway.methods.clip import Clip, ClipConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

__all__ = ["clip_config", "from_transformers", "ours_to_theirs", "theirs_to_ours", "to_transformers"]


def _renamed(config: ClipConfig) -> Iterator[tuple[str, str]]:
    """(ours, theirs) for tensors that differ in name alone."""
    yield "log_scale", "logit_scale"
    yield "image_projection.weight", "visual_projection.weight"
    yield "text_projection.weight", "text_projection.weight"
    yield "image.class_token", "vision_model.embeddings.class_embedding"
    yield "text.embed.words.weight", "text_model.embeddings.token_embedding.weight"
    yield "text.embed.positions", "text_model.embeddings.position_embedding.weight"
    norms = [("image.pre_norm", "vision_model.pre_layrnorm"),  # their spelling
             ("image.transformer.norm", "vision_model.post_layernorm"),
             ("text.transformer.norm", "text_model.final_layer_norm")]  # fmt: skip
    for own, their in _towers():
        tower = config.image if own == "image" else config.text
        assert isinstance(tower, VisionConfig | TextConfig)
        for layer in range(tower.layers):
            ours, theirs = f"{own}.transformer.blocks.{layer}", f"{their}.encoder.layers.{layer}"
            norms += [(f"{ours}.attention_norm", f"{theirs}.layer_norm1"), (f"{ours}.mlp_norm", f"{theirs}.layer_norm2"),
                      (f"{ours}.attention.out", f"{theirs}.self_attn.out_proj"),
                      (f"{ours}.mlp.up", f"{theirs}.mlp.fc1"), (f"{ours}.mlp.down", f"{theirs}.mlp.fc2")]  # fmt: skip
    for ours, theirs in norms:
        for kind in ("weight", "bias"):
            yield f"{ours}.{kind}", f"{theirs}.{kind}"


def _towers() -> tuple[tuple[str, str], ...]:
    return (("image", "vision_model"), ("text", "text_model"))


def _merged(config: ClipConfig) -> Iterator[tuple[str, list[str]]]:
    """(our merged projection, their query, key and value)."""
    for own, their in _towers():
        tower = config.image if own == "image" else config.text
        assert isinstance(tower, VisionConfig | TextConfig)
        for layer in range(tower.layers):
            for kind in ("weight", "bias"):
                parts = [f"{their}.encoder.layers.{layer}.self_attn.{part}_proj.{kind}" for part in "qkv"]
                yield f"{own}.transformer.blocks.{layer}.attention.qkv.{kind}", parts


_PATCH = "vision_model.embeddings.patch_embedding.weight"
_POSITION = "vision_model.embeddings.position_embedding.weight"


def theirs_to_ours(theirs: dict[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """Tensors of a `transformers.CLIPModel` under our names.

    Raises:
        WeightsError: naming tensors that are missing, or that nothing here accounts for.
    """
    # Position numbers 0, 1, 2, ... that old versions stored; they carry nothing.
    left = {name: tensor for name, tensor in theirs.items() if not name.endswith(".position_ids")}
    ours: dict[str, Tensor] = {}
    try:
        for own, their in _renamed(config):
            ours[own] = left.pop(their)
        for own, parts in _merged(config):
            ours[own] = torch.cat([left.pop(part) for part in parts])
        ours["image.patches.project.weight"] = left.pop(_PATCH).flatten(1)
        positions = left.pop(_POSITION)
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a CLIPModel?") from error
    ours["image.class_position"], ours["image.positions"] = positions[0], positions[1:]
    if left:
        raise WeightsError(f"the checkpoint has tensors that a CLIPModel does not: {', '.join(sorted(left)[:8])}")
    return ours


def ours_to_theirs(ours: dict[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """Our tensors under the names of a `transformers.CLIPModel`; the inverse of `theirs_to_ours`."""
    assert isinstance(config.image, VisionConfig)
    theirs = {their: ours[own] for own, their in _renamed(config)}
    for own, parts in _merged(config):
        theirs |= dict(zip(parts, ours[own].chunk(3), strict=True))
    patch = config.image.patch
    theirs[_PATCH] = ours["image.patches.project.weight"].unflatten(1, (3, patch, patch))
    theirs[_POSITION] = torch.cat([ours["image.class_position"][None], ours["image.positions"]])
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in theirs.items()}


def clip_config(theirs: dict[str, Any]) -> ClipConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (ViT-B/32)."""
    vision, text = theirs.get("vision_config") or {}, theirs.get("text_config") or {}

    def blocks(part: dict[str, Any], width: int, heads: int) -> dict[str, Any]:
        width = part.get("hidden_size", width)
        return {
            "width": width,
            "layers": part.get("num_hidden_layers", 12),
            "heads": part.get("num_attention_heads", heads),
            "mlp_ratio": part.get("intermediate_size", 4 * width) / width,
            "activation": activation_of(part.get("hidden_act", "quick_gelu")),
            "epsilon": part.get("layer_norm_eps", 1e-5),
        }

    image = VisionConfig(
        size=vision.get("image_size", 224),
        patch=vision.get("patch_size", 32),
        pool="class",
        pre_norm=True,
        patch_bias=False,
        **blocks(vision, 768, 12),
    )
    eos = text.get("eos_token_id", 49407)
    words = TextConfig(
        vocabulary=text.get("vocab_size", 49408),
        context=text.get("max_position_embeddings", 77),
        causal=True,
        pool="eos",
        # transformers reads 2 as "an old config whose end token is really the greatest id".
        eos_id=None if eos == 2 else eos,
        **blocks(text, 512, 8),
    )
    return ClipConfig(image=image, text=words, embedding=theirs.get("projection_dim", 512))


def from_transformers(source: str) -> Model:
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
    assign(method, theirs_to_ours(read_tensors(folder), config), str(folder))
    # CLIP's own normalisation and resize are ViewSpec's defaults.
    view = read_view(folder, ViewSpec(size=config.image.size))
    return Model(method, Processor(view, read_tokenizer(folder, config.text.context)))


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `transformers.CLIPModel.from_pretrained` and `CLIPProcessor` read.

    Raises:
        WeightsError: if the model is not a CLIP with a ViT, which is all that `CLIPModel` can be.
    """
    method = model.method
    if not isinstance(method, Clip) or not isinstance(method.config.image, VisionConfig):
        raise WeightsError("only a CLIP with a ViT image tower has a counterpart in transformers")
    config, image = method.config, method.config.image
    assert isinstance(image, VisionConfig)
    if image.pool != "class" or not image.pre_norm or image.patch_bias or image.stem != "patch":
        raise WeightsError(
            "transformers' CLIP has a class token, a norm before the blocks and patches projected without bias; this model differs"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, ours_to_theirs(method.state_dict(), config))
    write_json(folder / "config.json", _their_config(config, model.processor))
    view = model.processor.view
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True, "size": {"shortest_edge": view.size}, "do_center_crop": True,
            "crop_size": {"height": view.size, "width": view.size}, "do_rescale": True, "rescale_factor": 1 / 255,
            "do_normalize": True, "image_mean": list(view.mean), "image_std": list(view.std), "do_convert_rgb": True,
            "resample": resample_number(view),
        },
    )  # fmt: skip
    write_tokenizer(folder, model.processor)


def _their_config(config: ClipConfig, processor: Processor) -> dict[str, Any]:
    assert isinstance(config.image, VisionConfig)
    special = processor.tokenizer.special if processor.tokenizer else {}

    def blocks(part: VisionConfig | TextConfig) -> dict[str, Any]:
        return {
            "hidden_size": part.width, "num_hidden_layers": part.layers, "num_attention_heads": part.heads,
            "intermediate_size": int(part.width * part.mlp_ratio), "layer_norm_eps": part.epsilon,
            "hidden_act": their_activation(part.activation), "projection_dim": config.embedding,
        }  # fmt: skip

    eos = 2 if config.text.eos_id is None else config.text.eos_id
    text = {"vocab_size": config.text.vocabulary, "max_position_embeddings": config.text.context, "eos_token_id": eos,
            "bos_token_id": special.get("bos", 0), "pad_token_id": special.get("pad", 1)}  # fmt: skip
    vision = {"image_size": config.image.size, "patch_size": config.image.patch, "num_channels": 3}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embedding,
        "text_config": {"model_type": "clip_text_model", **blocks(config.text), **text},
        "vision_config": {"model_type": "clip_vision_model", **blocks(config.image), **vision},
    }
