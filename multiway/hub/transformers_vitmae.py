"""MAE checkpoints of the `transformers` library (`ViTMAEForPreTraining`), in and out, with their decoder.

Their layout keeps query, key and value apart, the class token's position in one table with the patches', and a patch's values
with the colours last; ours merges the first, splits the second and has the colours first. Nothing is computed on the way in. Fixed
positions, which ours makes anew, are compared with the checkpoint's; others than sines and cosines are taken over and may learn.

Folders written by transformers 5 and before it name the layers differently; both are read, and the older names, which both read,
are written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill, renamed, state_of
from multiway.hub.rules import Rule, both, laid_out, leading, patches, placed
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
from multiway.hub.vit_tensors import Names, blocks
from multiway.methods.mae import Mae, MaeConfig
from multiway.nn.mae_decoder import MaeDecoderConfig
from multiway.nn.patch import sincos_positions
from multiway.nn.vit import VisionConfig

__all__ = [
    "decoder",
    "from_transformers",
    "is_fixed",
    "mae_config",
    "older",
    "ours_to_theirs",
    "table",
    "theirs_to_ours",
    "to_transformers",
]

KIND = "ViTMAEForPreTraining"
_POSITIONS, _DECODER_POSITIONS = "vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"
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


def table(patch: int) -> Table:
    """Which tensors are which.

    Args:
        patch: side of a patch, of whose values (row, column, colour) is the order there, and (colour, row, column) here.
    """
    rules = [
        *decoder("decoder.", patch),
        *patches("backbone.patches.project", "vit.embeddings.patch_embeddings.projection"),
        *leading(("backbone.class_token", "vit.embeddings.cls_token")),
        *placed("backbone.", _POSITIONS),
        *both(("backbone.transformer.norm", "vit.layernorm")),
        *blocks("backbone.transformer.blocks.*", "vit.encoder.layer.*", Names()),
        *blocks("decoder.transformer.blocks.*", "decoder.decoder_layers.*", Names()),
    ]
    return Table(KIND, rules)


def decoder(root: str, patch: int) -> list[Rule]:
    """The decoder without its blocks, by the names of the authors' code, before which there may be a root."""
    rules = [
        *leading(("decoder.mask_token", f"{root}mask_token")),
        *placed("decoder.", f"{root}decoder_pos_embed"),
        *both(("decoder.embed", f"{root}decoder_embed"), ("decoder.transformer.norm", f"{root}decoder_norm")),
    ]
    for each in ("weight", "bias"):
        rules += laid_out(
            f"decoder.predict.{each}",
            f"{root}decoder_pred.{each}",
            lambda values: values.unflatten(0, (patch, patch, 3)).movedim(2, 0).flatten(0, 2),
            lambda values: values.unflatten(0, (3, patch, patch)).movedim(0, 2).flatten(0, 2),
        )
    return rules


def ours_to_theirs(method: Mae) -> dict[str, Tensor]:
    """Our tensors under their older names. The probe is left behind."""
    return table(method.config.backbone.patch).write(state_of(method), leave=(r"^probe\.",))


def mae_config(theirs: dict[str, Any], tensors: Mapping[str, Tensor]) -> MaeConfig:
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
        mlp_ratio=mlp_ratio(width, theirs.get("intermediate_size", 3072)),
        activation=activation_of(theirs.get("hidden_act", "gelu")),  # type: ignore[arg-type]
        epsilon=theirs.get("layer_norm_eps", 1e-12),
        positions="sincos" if is_fixed(seen[1:], grid) else "learned",
    )
    decoder = MaeDecoderConfig(
        inner,
        theirs.get("decoder_num_hidden_layers", 8),
        theirs.get("decoder_num_attention_heads", 16),
        mlp_ratio(inner, theirs.get("decoder_intermediate_size", 2048)),
        "sincos" if is_fixed(decoded[1:], grid) and not decoded[0].any() else "learned",
    )
    return MaeConfig(image, decoder=decoder, normalised=theirs.get("norm_pix_loss", False))


def is_fixed(positions: Tensor, grid: tuple[int, int]) -> bool:
    """Whether (N, W) positions of a grid are sines and cosines.

    Raises:
        WeightsError: if there are more or fewer than the grid has patches.
    """
    wanted = (grid[0] * grid[1], positions.shape[1])
    if positions.shape != wanted:
        raise WeightsError(
            f"the checkpoint has {positions.shape[0]} positions, and its config {wanted[0]} patches; is it whole?"
        )
    return positions.shape[1] % 4 == 0 and bool(
        (positions.float() - sincos_positions(grid, positions.shape[1])).abs().max() < _TOLERANCE
    )


def theirs_to_ours(theirs: Mapping[str, Tensor], config: MaeConfig) -> dict[str, Tensor]:
    """Their tensors under our names, of a model in memory; see `renamed`."""
    older_names = {older(name): tensor for name, tensor in theirs.items()}
    return renamed(table(config.backbone.patch), older_names, lambda: Mae(config))


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
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
    tensors = {older(name): tensor for name, tensor in read_tensors(folder).items()}
    config = mae_config(theirs, tensors)
    method = Mae(config)
    report = fill(method, table(config.backbone.patch), tensors, str(folder), allow)
    view = ViewSpec(config.backbone.size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resample="bilinear")
    view = read_view(folder, replace(view, crop="squash"), squeezes=True)
    return Model(method, Processor(view, None), report=report)


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
    write_view(folder, model.processor.view)


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
