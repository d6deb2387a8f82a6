"""CoCa checkpoints of the `open_clip` library, in and out: `coca_ViT-B-32`, `coca_ViT-L-14` and their like.

Theirs is not quite the paper's CoCa, and ours takes its form where a config says so: one pooler for both losses
(`pooler="single"`), attention to the picture in blocks of its own (`cross="after"`), and the mask of [CLS] one place late, as it
was when their weights were trained (`class_mask="legacy"`). Their two other poolers, `cascade` and `parallel`, norm the
picture's tokens where ours and the paper's norm what is pooled; no weights of them are published, and they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError, assign
from multiway.hub.model import Model
from multiway.hub.transformers_folder import read_tokenizer, write_json, write_tokenizer
from multiway.methods.coca import Coca, CocaConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

__all__ = ["CONFIG_FILE", "coca_config", "from_open_clip", "ours_to_theirs", "theirs_to_ours", "to_open_clip"]

CONFIG_FILE = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_POOL, _OUR_POOL = "visual.attn_pool.attn", "pools.caption.attention"


def _blocks(config: CocaConfig) -> Iterator[tuple[str, str]]:
    """(ours, theirs) of blocks of self-attention and a feed-forward part."""
    towers = [("image.transformer", "visual.transformer", config.image.layers),
              ("unimodal.transformer", "text.transformer", config.text.layers),
              ("multimodal", "text_decoder", config.multimodal_layers)]  # fmt: skip
    for ours, theirs, layers in towers:
        for layer in range(layers):
            yield f"{ours}.blocks.{layer}", f"{theirs}.resblocks.{layer}"


def _renamed(config: CocaConfig) -> Iterator[tuple[str, str]]:
    """(ours, theirs) for tensors that differ in name alone."""
    yield from [("image.class_token", "visual.class_embedding"), ("unimodal.embed.words.weight", "text.token_embedding.weight"),
                ("unimodal.class_token", "text.cls_emb"), ("pools.caption.queries", "visual.attn_pool.query"),
                ("log_scale", "logit_scale")]  # fmt: skip
    pairs = [("image.pre_norm", "visual.ln_pre"), ("pools.caption.query_norm", "visual.attn_pool.ln_q"),
             ("pools.caption.memory_norm", "visual.attn_pool.ln_k"), ("pools.caption.output_norm", "visual.ln_post"),
             (f"{_OUR_POOL}.out", f"{_POOL}.out_proj"), ("unimodal.class_norm", "text.ln_final"),
             ("multimodal.norm", "text_decoder.ln_final")]  # fmt: skip
    for ours, theirs in _blocks(config):
        parts = [("attention_norm", "ln_1"), ("attention.out", "attn.out_proj"), ("mlp_norm", "ln_2"),
                 ("mlp.up", "mlp.c_fc"), ("mlp.down", "mlp.c_proj")]  # fmt: skip
        pairs += [(f"{ours}.{own}", f"{theirs}.{their}") for own, their in parts]
        for tensor in ("weight", "bias"):
            yield f"{ours}.attention.qkv.{tensor}", f"{theirs}.attn.in_proj_{tensor}"
    for layer in range(config.multimodal_layers):
        ours, theirs = f"multimodal.crosses.{layer}", f"text_decoder.cross_attn.{layer}"
        parts = [("norm", "ln_1"), ("memory_norm", "ln_1_kv"), ("attention.out", "attn.out_proj"), ("mlp_norm", "ln_2"),
                 ("mlp.up", "mlp.c_fc"), ("mlp.down", "mlp.c_proj")]  # fmt: skip
        pairs += [(f"{ours}.{own}", f"{theirs}.{their}") for own, their in parts]
    for own, their in pairs:
        for tensor in ("weight", "bias"):
            yield f"{own}.{tensor}", f"{their}.{tensor}"


def _crosses(config: CocaConfig) -> Iterator[tuple[str, str]]:
    """(ours, theirs) of attentions over a memory, whose three projections they merge and we cut after the queries'."""
    for layer in range(config.multimodal_layers):
        yield f"multimodal.crosses.{layer}.attention", f"text_decoder.cross_attn.{layer}.attn"
    if config.image.width == config.text.width:
        yield _OUR_POOL, _POOL


_TURNED = {
    "image_projection.weight": "visual.proj",
    "text_projection.weight": "text.text_projection",
    "vocabulary.weight": "text_decoder.text_projection",
}  # matrices that they multiply from the right


def theirs_to_ours(theirs: dict[str, Tensor], config: CocaConfig) -> dict[str, Tensor]:
    """Their tensors under our names.

    Raises:
        WeightsError: naming tensors that are missing, or that nothing here accounts for.
    """
    left, ours = dict(theirs), {}
    try:
        for own, their in _renamed(config):
            ours[own] = left.pop(their)
        ours["log_scale"] = ours["log_scale"].reshape(())
        for own, their in _TURNED.items():
            ours[own] = left.pop(their).T
        for own, their in _crosses(config):
            for tensor in ("weight", "bias"):
                query, key, value = left.pop(f"{their}.in_proj_{tensor}").chunk(3)
                ours[f"{own}.query.{tensor}"], ours[f"{own}.key_value.{tensor}"] = query, torch.cat([key, value])
        if config.image.width != config.text.width:
            query, key, value = left.pop(f"{_POOL}.in_proj_bias").chunk(3)
            ours[f"{_OUR_POOL}.query.bias"], ours[f"{_OUR_POOL}.key_value.bias"] = query, torch.cat([key, value])
            ours[f"{_OUR_POOL}.query.weight"] = left.pop(f"{_POOL}.q_proj_weight")
            both = [left.pop(f"{_POOL}.{part}_proj_weight") for part in ("k", "v")]
            ours[f"{_OUR_POOL}.key_value.weight"] = torch.cat(both)
        ours["image.patches.project.weight"] = left.pop("visual.conv1.weight").flatten(1)
        places = left.pop("visual.positional_embedding")
        ours["image.class_position"], ours["image.positions"] = places[0], places[1:]
        places = left.pop("text.positional_embedding")
        ours["unimodal.embed.positions"], ours["unimodal.class_position"] = places[:-1], places[-1]
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a CoCa of open_clip?") from error
    if left:
        raise WeightsError(f"the checkpoint has tensors that a CoCa does not: {', '.join(sorted(left)[:8])}")
    return {name: tensor.contiguous() for name, tensor in ours.items()}


def ours_to_theirs(ours: dict[str, Tensor], config: CocaConfig) -> dict[str, Tensor]:
    """Our tensors under their names."""
    theirs = {their: ours[own] for own, their in _renamed(config)}
    theirs |= {their: ours[own].T for own, their in _TURNED.items()}
    for own, their in _crosses(config):
        for tensor in ("weight", "bias"):
            theirs[f"{their}.in_proj_{tensor}"] = torch.cat(
                [ours[f"{own}.query.{tensor}"], ours[f"{own}.key_value.{tensor}"]]
            )
    if config.image.width != config.text.width:
        theirs[f"{_POOL}.in_proj_bias"] = torch.cat(
            [ours[f"{_OUR_POOL}.query.bias"], ours[f"{_OUR_POOL}.key_value.bias"]]
        )
        theirs[f"{_POOL}.q_proj_weight"] = ours[f"{_OUR_POOL}.query.weight"]
        key, value = ours[f"{_OUR_POOL}.key_value.weight"].chunk(2)
        theirs[f"{_POOL}.k_proj_weight"], theirs[f"{_POOL}.v_proj_weight"] = key, value
    patch = config.image.patch
    theirs["visual.conv1.weight"] = ours["image.patches.project.weight"].unflatten(1, (3, patch, patch))
    places = [("visual", ["image.class_position", "image.positions"]),
              ("text", ["unimodal.embed.positions", "unimodal.class_position"])]  # fmt: skip
    for tower, names in places:
        rows = [ours[name].reshape(-1, ours[name].shape[-1]) for name in names]
        theirs[f"{tower}.positional_embedding"] = torch.cat(rows)
    return theirs


def coca_config(theirs: dict[str, Any]) -> CocaConfig:
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
    shape = vision.get("width", 768)
    return CocaConfig(
        image=VisionConfig(
            size=vision.get("image_size", 224),
            patch=vision.get("patch_size", 16),
            width=shape,
            layers=vision.get("layers", 12),
            heads=shape // vision.get("head_width", 64),
            mlp_ratio=float(vision.get("mlp_ratio", 4.0)),
            activation=activation,  # type: ignore[arg-type]
            pool="class",
            pre_norm=True,
            patch_bias=False,
            epsilon=1e-5,
        ),
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


def from_open_clip(folder: Path) -> Model:
    """A CoCa from a folder as `open_clip` keeps it on the hub: `open_clip_config.json` and the weights.

    The tokeniser is CLIP's, which `open_clip` brings along and such folders lack: without a `tokenizer.json` beside them the
    model takes token ids, not strings.

    Raises:
        WeightsError: if a file is missing, the model is no CoCa that can be converted, or a tensor is unaccounted for.
    """
    stated = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    theirs = stated.get("model_cfg", {})
    if "multimodal_cfg" not in theirs:
        raise WeightsError(
            f"{folder / CONFIG_FILE} has no multimodal_cfg; of open_clip's models CoCas can be converted"
        )
    config = coca_config(theirs)
    file = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise WeightsError(f"{folder} has neither {' nor '.join(_WEIGHTS)}")
    tensors = load_file(str(file)) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    method = Coca(config)
    assign(method, theirs_to_ours(tensors, config), str(folder))
    drawn = stated.get("preprocess_cfg", {})
    default = ViewSpec(size=config.image.size)
    view = ViewSpec(
        size=config.image.size,
        crop="squash" if drawn.get("resize_mode") == "squash" else "center",
        mean=tuple(drawn.get("mean", default.mean)),
        std=tuple(drawn.get("std", default.std)),
        resample=drawn.get("interpolation", "bicubic"),
    )
    return Model(method, Processor(view, read_tokenizer(folder, config.text.context)))


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
    folder.mkdir(parents=True, exist_ok=True)
    tensors = ours_to_theirs(method.state_dict(), config)
    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(apart, str(folder / _WEIGHTS[0]), metadata={"format": "pt"})
    view = model.processor.view
    drawn = {
        "size": view.size, "mode": "RGB", "mean": list(view.mean), "std": list(view.std), "interpolation": view.resample,
        "resize_mode": "squash" if view.crop == "squash" else "shortest", "fill_color": 0,
    }  # fmt: skip
    write_json(folder / CONFIG_FILE, {"model_cfg": _their_config(config), "preprocess_cfg": drawn})
    write_tokenizer(folder, model.processor)


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
