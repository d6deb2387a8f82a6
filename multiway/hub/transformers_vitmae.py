"""MAE checkpoints of the `transformers` library (`ViTMAEForPreTraining`), in and out, with their decoder.

Their layout keeps query, key and value apart, the class token's position in one table with the patches', and a patch's values
with the colours last; ours merges the first, splits the second and has the colours first. Nothing is computed on the way in. Fixed
positions, which ours makes anew, are compared with the checkpoint's; others than sines and cosines are taken over and may learn.

Folders written by transformers 5 and before it name the layers differently; both are read, and the older names, which both read,
are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
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
    read_view,
    resample_number,
    their_activation,
    write_json,
    write_tensors,
)
from multiway.methods.mae import Mae, MaeConfig
from multiway.nn.mae_decoder import MaeDecoderConfig
from multiway.nn.patch import sincos_positions
from multiway.nn.vit import VisionConfig

__all__ = ["from_transformers", "mae_config", "older", "ours_to_theirs", "theirs_to_ours", "to_transformers"]

KIND = "ViTMAEForPreTraining"
_CLASS, _MASK = "vit.embeddings.cls_token", "decoder.mask_token"
_PATCH = "vit.embeddings.patch_embeddings.projection.weight"
_POSITIONS, _DECODER_POSITIONS = "vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"
_VALUES = "decoder.decoder_pred"
_TOLERANCE = 1e-5  # by which sines and cosines of another library may differ
_OLDER = [(r"^vit\.layers\.", "vit.encoder.layer."),
          # Not a name that anyone meant: what `save_pretrained` of transformers 5 makes of the decoder's layers.
          (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."), (r"\.mlp\.fc1\.", ".intermediate.dense."),
          (r"\.mlp\.fc2\.", ".output.dense."), (r"\.attention\.q_proj\.", ".attention.attention.query."),
          (r"\.attention\.k_proj\.", ".attention.attention.key."),
          (r"\.attention\.v_proj\.", ".attention.attention.value."),
          (r"\.attention\.o_proj\.", ".attention.output.dense.")]  # fmt: skip


def older(name: str) -> str:
    """A tensor's name as it was before transformers 5."""
    for pattern, replacement in _OLDER:
        name = re.sub(pattern, replacement, name)
    return name


def _blocks(config: MaeConfig) -> Iterator[tuple[str, str]]:
    """(our block, theirs), of the encoder and the decoder."""
    for layer in range(config.backbone.layers):
        yield f"backbone.transformer.blocks.{layer}", f"vit.encoder.layer.{layer}"
    for layer in range(config.decoder.layers):
        yield f"decoder.transformer.blocks.{layer}", f"decoder.decoder_layers.{layer}"


def _renamed(config: MaeConfig) -> Iterator[tuple[str, str]]:
    """(ours, theirs) for tensors that differ in name alone."""
    yield "backbone.patches.project.bias", "vit.embeddings.patch_embeddings.projection.bias"
    pairs = [("backbone.transformer.norm", "vit.layernorm"), ("decoder.embed", "decoder.decoder_embed"),
             ("decoder.transformer.norm", "decoder.decoder_norm")]  # fmt: skip
    for ours, theirs in _blocks(config):
        pairs += [(f"{ours}.attention_norm", f"{theirs}.layernorm_before"),
                  (f"{ours}.mlp_norm", f"{theirs}.layernorm_after"),
                  (f"{ours}.attention.out", f"{theirs}.attention.output.dense"),
                  (f"{ours}.mlp.up", f"{theirs}.intermediate.dense"),
                  (f"{ours}.mlp.down", f"{theirs}.output.dense")]  # fmt: skip
    for ours, theirs in pairs:
        for tensor in ("weight", "bias"):
            yield f"{ours}.{tensor}", f"{theirs}.{tensor}"


def _merged(config: MaeConfig) -> Iterator[tuple[str, list[str]]]:
    """(our merged projection, their query, key and value)."""
    for ours, theirs in _blocks(config):
        for tensor in ("weight", "bias"):
            parts = [f"{theirs}.attention.attention.{part}.{tensor}" for part in ("query", "key", "value")]
            yield f"{ours}.attention.qkv.{tensor}", parts


def theirs_to_ours(theirs: dict[str, Tensor], config: MaeConfig) -> dict[str, Tensor]:
    """Their tensors under our names.

    Args:
        theirs: by the names of either layout.
        config: of `mae_config`, with the same tensors.

    Raises:
        WeightsError: naming tensors that are missing, or that nothing here accounts for.
    """
    left = {older(name): tensor for name, tensor in theirs.items()}
    patch = config.backbone.patch
    ours: dict[str, Tensor] = {}
    try:
        for own, their in _renamed(config):
            ours[own] = left.pop(their)
        for own, parts in _merged(config):
            ours[own] = torch.cat([left.pop(part) for part in parts])
        ours["backbone.patches.project.weight"] = left.pop(_PATCH).flatten(1)
        ours["backbone.class_token"] = left.pop(_CLASS).flatten()
        ours["decoder.mask_token"] = left.pop(_MASK).flatten()
        for tensor in ("weight", "bias"):
            # Their values of a patch are (row, column, colour), ours (colour, row, column).
            values = left.pop(f"{_VALUES}.{tensor}").unflatten(0, (patch, patch, 3))
            ours[f"decoder.predict.{tensor}"] = values.movedim(2, 0).flatten(0, 2)
        seen, decoded = left.pop(_POSITIONS)[0], left.pop(_DECODER_POSITIONS)[0]
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a {KIND}?") from error
    ours["backbone.class_position"] = seen[0]
    if config.backbone.positions == "learned":
        ours["backbone.positions"] = seen[1:]
    if config.decoder.positions == "learned":
        ours["decoder.class_position"], ours["decoder.positions"] = decoded[0], decoded[1:]
    if left:
        raise WeightsError(f"the checkpoint has tensors that a {KIND} does not: {', '.join(sorted(left)[:8])}")
    return ours


def ours_to_theirs(method: Mae) -> dict[str, Tensor]:
    """Our tensors under their older names; the inverse of `theirs_to_ours`. The probe is left behind."""
    ours, config = method.state_dict(), method.config
    patch = config.backbone.patch
    theirs = {their: ours[own] for own, their in _renamed(config)}
    for own, parts in _merged(config):
        theirs |= dict(zip(parts, ours[own].chunk(3), strict=True))
    theirs[_PATCH] = ours["backbone.patches.project.weight"].unflatten(1, (3, patch, patch))
    theirs[_CLASS], theirs[_MASK] = (ours[name][None, None] for name in ("backbone.class_token", "decoder.mask_token"))
    for tensor in ("weight", "bias"):
        values = ours[f"decoder.predict.{tensor}"].unflatten(0, (3, patch, patch))
        theirs[f"{_VALUES}.{tensor}"] = values.movedim(0, 2).flatten(0, 2)
    positions, first = method.decoder.positions, method.decoder.class_position
    assert positions is not None
    of_class = torch.zeros_like(positions[0]) if first is None else first.detach()
    theirs[_POSITIONS] = torch.cat([ours["backbone.class_position"][None], method.backbone.positions.detach()])[None]
    theirs[_DECODER_POSITIONS] = torch.cat([of_class[None], positions.detach()])[None]
    return theirs


def mae_config(theirs: dict[str, Any], tensors: dict[str, Tensor]) -> MaeConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (ViT-B/16).

    Args:
        theirs: the parsed file.
        tensors: by their older names; their positions tell whether these are fixed.

    Raises:
        WeightsError: for what has no counterpart here.
    """
    width, inner = theirs.get("hidden_size", 768), theirs.get("decoder_hidden_size", 512)
    size, patch = theirs.get("image_size", 224), theirs.get("patch_size", 16)
    plain = {"num_channels": 3, "qkv_bias": True, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    other = {name: theirs[name] for name, value in plain.items() if theirs.get(name, value) != value}
    if other or not isinstance(size, int) or not isinstance(patch, int) or size % patch:
        raise WeightsError(
            f"an MAE here has square pictures of three colours, biases and no dropout; given size {size!r}, patch {patch!r} "
            f"{other or ''}"
        )
    grid = (size // patch,) * 2
    missing = [name for name in (_POSITIONS, _DECODER_POSITIONS) if name not in tensors]
    if missing:
        raise WeightsError(f"the checkpoint lacks the tensor {missing[0]}; is it a {KIND}?")
    seen, decoded = tensors[_POSITIONS][0], tensors[_DECODER_POSITIONS][0]
    image = VisionConfig(
        size=size,
        patch=patch,
        width=width,
        layers=theirs.get("num_hidden_layers", 12),
        heads=theirs.get("num_attention_heads", 12),
        mlp_ratio=theirs.get("intermediate_size", 3072) / width,
        activation=activation_of(theirs.get("hidden_act", "gelu")),  # type: ignore[arg-type]
        epsilon=theirs.get("layer_norm_eps", 1e-12),
        positions="sincos" if _fixed(seen[1:], grid) else "learned",
    )
    decoder = MaeDecoderConfig(
        inner,
        theirs.get("decoder_num_hidden_layers", 8),
        theirs.get("decoder_num_attention_heads", 16),
        theirs.get("decoder_intermediate_size", 2048) / inner,
        "sincos" if _fixed(decoded[1:], grid) and not decoded[0].any() else "learned",
    )
    return MaeConfig(image, decoder=decoder, normalised=theirs.get("norm_pix_loss", False))


def _fixed(positions: Tensor, grid: tuple[int, int]) -> bool:
    wanted = (grid[0] * grid[1], positions.shape[1])
    if positions.shape != wanted:
        raise WeightsError(
            f"the checkpoint has {positions.shape[0]} positions, and its config {wanted[0]} patches; is it whole?"
        )
    return positions.shape[1] % 4 == 0 and bool(
        (positions.float() - sincos_positions(grid, positions.shape[1])).abs().max() < _TOLERANCE
    )


def from_transformers(source: str) -> Model:
    """An MAE from a folder in `transformers` layout, or by its name on the hub (`facebook/vit-mae-base`).

    Raises:
        WeightsError: if a file is missing, the class is another, or a tensor is unaccounted for.
    """
    folder = open_folder(source)
    theirs = read_config(folder)
    kind = (theirs.get("architectures") or [KIND])[0]
    if theirs.get("model_type", "vit_mae") != "vit_mae" or kind != KIND:
        raise WeightsError(
            f"{folder} holds a {kind} of type {theirs.get('model_type', 'vit_mae')!r}; expected a {KIND}, which has the decoder too"
        )
    tensors = read_tensors(folder)
    config = mae_config(theirs, {older(name): tensor for name, tensor in tensors.items()})
    method = Mae(config)
    assign(method, theirs_to_ours(tensors, config), str(folder))
    view = ViewSpec(config.backbone.size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resample="bilinear")
    # Their processors squeeze pictures into the square, also where one side alone is given.
    return Model(method, Processor(replace(read_view(folder, view), crop="squash"), None))


def to_transformers(model: Model, folder: Path, ratio: float = 0.75) -> None:
    """Write a folder that the `from_pretrained` of `ViTMAEForPreTraining` reads.

    Args:
        model: an MAE as published.
        folder: is made.
        ratio: share of patches that theirs is to hide.

    Raises:
        WeightsError: if the model is no such MAE.
    """
    method = model.method
    if not isinstance(method, Mae) or not _as_published(method.config):
        raise WeightsError(
            "only an MAE as published has a counterpart in transformers: patches cut and projected, a class token, mask tokens and "
            "positions in the decoder, no layer scale"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, ours_to_theirs(method))
    write_json(folder / "config.json", _their_config(method.config) | {"mask_ratio": ratio})
    view = model.processor.view
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": view.size, "width": view.size},
            "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(view.mean),
            "image_std": list(view.std), "resample": resample_number(view),
        },
    )  # fmt: skip


def _as_published(config: MaeConfig) -> bool:
    image = config.backbone
    plain = image.stem == "patch" and image.patch_bias and not image.pre_norm and image.layer_scale is None
    return plain and image.has_class_token and config.mask_tokens == "decoder" and config.decoder.positions != "none"


def _their_config(config: MaeConfig) -> dict[str, Any]:
    image, decoder = config.backbone, config.decoder
    return {
        "model_type": "vit_mae", "architectures": [KIND], "image_size": image.size, "patch_size": image.patch, "num_channels": 3,
        "hidden_size": image.width, "num_hidden_layers": image.layers, "num_attention_heads": image.heads,
        "intermediate_size": int(image.width * image.mlp_ratio), "hidden_act": their_activation(image.activation),
        "layer_norm_eps": image.epsilon, "qkv_bias": True, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "decoder_hidden_size": decoder.width, "decoder_num_hidden_layers": decoder.layers,
        "decoder_num_attention_heads": decoder.heads, "decoder_intermediate_size": int(decoder.width * decoder.mlp_ratio),
        "norm_pix_loss": config.normalised,
    }  # fmt: skip
