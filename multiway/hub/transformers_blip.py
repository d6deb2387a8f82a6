"""BLIP checkpoints of the `transformers` library, in and out.

Three classes of theirs hold parts of one model of ours: retrieval has the two encoding modes, captioning the writing mode,
question answering the image-grounded encoder and a decoder of its own. What a checkpoint has no weights for, our model
hides (`BlipConfig.lacks`). Out again a model of ours, however its modes share weights, can be written as each of the three.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

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
from multiway.methods.blip import Blip, BlipConfig
from multiway.nn.decoder import SHARING, Sharing
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

__all__ = ["Kind", "blip_config", "from_transformers", "ours_to_theirs", "theirs_to_ours", "to_transformers"]

Kind = Literal["BlipForImageTextRetrieval", "BlipForConditionalGeneration", "BlipForQuestionAnswering"]

_RETRIEVAL, _CAPTIONING, _ANSWERING = get_args(Kind)
_ENCODER = "text_encoder"
_DECODER = "text_decoder.bert"
_HEAD = "text_decoder.cls.predictions"
_LACKS: dict[str, tuple[str, ...]] = {
    _RETRIEVAL: ("caption_likelihood", "generate"),
    _CAPTIONING: ("encode_text", "compare", "match", "match_with_maps"),
    _ANSWERING: ("encode_text", "compare", "match", "match_with_maps", "caption_likelihood", "generate"),
}
_PATCH, _CLASS, _POSITION = (
    f"vision_model.embeddings.{name}" for name in ("patch_embedding.weight", "class_embedding", "position_embedding")
)


class _Text(NamedTuple):
    """One of their text transformers: its prefix, and whether it writes."""

    prefix: str
    writes: bool


def _texts(kind: Kind) -> list[_Text]:
    return {
        _RETRIEVAL: [_Text(_ENCODER, False)],
        _CAPTIONING: [_Text(_DECODER, True)],
        _ANSWERING: [_Text(_ENCODER, False), _Text(_DECODER, True)],
    }[kind]


def _both(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for ours, theirs in pairs:
        for tensor in ("weight", "bias"):
            yield f"{ours}.{tensor}", f"{theirs}.{tensor}"


def _place(config: BlipConfig, text: _Text, layer: int, part: str) -> str:
    """Where a part of a block is among ours: the decoder's own, or the one that it shares."""
    if text.writes and config.sharing == "none":
        return f"decoder.blocks.blocks.{layer}.{part}"
    if text.writes and part in SHARING[config.sharing]:
        return f"decoder.own.{layer}.{part}"
    return f"student.text.transformer.blocks.{layer}.{part}"


def _renamed(config: BlipConfig, kind: Kind) -> Iterator[tuple[str, str]]:
    """(ours, theirs) for tensors that differ in name alone."""
    pairs = [("student.image.transformer.norm", "vision_model.post_layernorm")]
    for layer in range(config.image.layers):
        ours, theirs = f"student.image.transformer.blocks.{layer}", f"vision_model.encoder.layers.{layer}"
        names = [("attention_norm", "layer_norm1"), ("mlp_norm", "layer_norm2"), ("attention.qkv", "self_attn.qkv"),
                 ("attention.out", "self_attn.projection"), ("mlp.up", "mlp.fc1"), ("mlp.down", "mlp.fc2")]  # fmt: skip
        pairs += [(f"{ours}.{own}", f"{theirs}.{their}") for own, their in names]
    yield "student.image.patches.project.bias", "vision_model.embeddings.patch_embedding.bias"
    for text in _texts(kind):
        embed = "decoder.embed" if text.writes and config.sharing == "none" else "student.text.embed"
        yield f"{embed}.words.weight", f"{text.prefix}.embeddings.word_embeddings.weight"
        yield f"{embed}.positions", f"{text.prefix}.embeddings.position_embeddings.weight"
        pairs.append((f"{embed}.norm.0", f"{text.prefix}.embeddings.LayerNorm"))
        for layer in range(config.text.layers):
            theirs = f"{text.prefix}.encoder.layer.{layer}"
            parts = [("attention", "out", "attention.output.dense"), ("attention_norm", "", "attention.output.LayerNorm"),
                     ("cross", "query", "crossattention.self.query"), ("cross", "out", "crossattention.output.dense"),
                     ("cross_norm", "", "crossattention.output.LayerNorm"), ("mlp", "up", "intermediate.dense"),
                     ("mlp", "down", "output.dense"), ("mlp_norm", "", "output.LayerNorm")]  # fmt: skip
            for part, inner, their in parts:
                pairs.append((f"{_place(config, text, layer, part)}.{inner}".rstrip("."), f"{theirs}.{their}"))
    if kind == _RETRIEVAL:
        pairs += [("student.image_projection", "vision_proj"), ("student.text_projection", "text_proj"),
                  ("match_head", "itm_head")]  # fmt: skip
    else:
        pairs += [
            ("decoder.words.dense", f"{_HEAD}.transform.dense"),
            ("decoder.words.norm", f"{_HEAD}.transform.LayerNorm"),
        ]
        yield "decoder.words.bias", f"{_HEAD}.bias"
    yield from _both(pairs)


def _merged(config: BlipConfig, kind: Kind) -> Iterator[tuple[str, list[str]]]:
    """(our merged projection, theirs apart)."""
    for text in _texts(kind):
        for layer in range(config.text.layers):
            theirs = f"{text.prefix}.encoder.layer.{layer}"
            for tensor in ("weight", "bias"):
                inner = f"{theirs}.attention.self"
                yield (
                    f"{_place(config, text, layer, 'attention')}.qkv.{tensor}",
                    [f"{inner}.{part}.{tensor}" for part in ("query", "key", "value")],
                )
                inner = f"{theirs}.crossattention.self"
                yield (
                    f"{_place(config, text, layer, 'cross')}.key_value.{tensor}",
                    [f"{inner}.{part}.{tensor}" for part in ("key", "value")],
                )


def theirs_to_ours(theirs: dict[str, Tensor], config: BlipConfig, kind: Kind) -> dict[str, Tensor]:
    """Tensors of one of their classes under our names: those of our tensors that the class has.

    Raises:
        WeightsError: naming tensors that are missing, or that nothing here accounts for.
    """
    # Position numbers 0, 1, 2, ... that old versions stored; they carry nothing.
    left = {name: tensor for name, tensor in theirs.items() if not name.endswith("position_ids")}
    ours: dict[str, Tensor] = {}
    try:
        for own, their in _renamed(config, kind):
            ours[own] = left.pop(their)
        for own, parts in _merged(config, kind):
            ours[own] = torch.cat([left.pop(part) for part in parts])
        ours["student.image.patches.project.weight"] = left.pop(_PATCH).flatten(1)
        ours["student.image.class_token"] = left.pop(_CLASS).flatten()
        positions = left.pop(_POSITION).squeeze(0)
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a {kind}?") from error
    ours["student.image.class_position"], ours["student.image.positions"] = positions[0], positions[1:]
    if kind != _RETRIEVAL:
        tied = {"weight": f"{_DECODER}.embeddings.word_embeddings.weight", "bias": f"{_HEAD}.bias"}
        for tensor, same in tied.items():
            again = left.pop(f"{_HEAD}.decoder.{tensor}", None)
            if again is not None and not torch.equal(again, theirs[same]):
                raise WeightsError(f"{_HEAD}.decoder.{tensor} differs from {same}, to which it is tied in a BLIP")
    if left:
        raise WeightsError(f"the checkpoint has tensors that a {kind} does not: {', '.join(sorted(left)[:8])}")
    return ours


def ours_to_theirs(ours: dict[str, Tensor], config: BlipConfig, kind: Kind) -> dict[str, Tensor]:
    """Our tensors under the names of one of their classes. What the class has no place for stays behind; what its two text
    transformers share is written twice.
    """
    theirs = {their: ours[own] for own, their in _renamed(config, kind)}
    for own, parts in _merged(config, kind):
        theirs |= dict(zip(parts, ours[own].chunk(len(parts)), strict=True))
    patch = config.image.patch
    theirs[_PATCH] = ours["student.image.patches.project.weight"].unflatten(1, (3, patch, patch))
    theirs[_CLASS] = ours["student.image.class_token"][None, None]
    theirs[_POSITION] = torch.cat([ours["student.image.class_position"][None], ours["student.image.positions"]])[None]
    if kind != _RETRIEVAL:
        theirs[f"{_HEAD}.decoder.weight"] = theirs[f"{_DECODER}.embeddings.word_embeddings.weight"]
        theirs[f"{_HEAD}.decoder.bias"] = theirs[f"{_HEAD}.bias"]
    return theirs


def blip_config(theirs: dict[str, Any], kind: Kind) -> BlipConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults.

    A checkpoint of one text transformer is one whose modes share all; question answering has two that share nothing.
    """
    vision, text = theirs.get("vision_config") or {}, theirs.get("text_config") or {}
    width, words = vision.get("hidden_size", 768), text.get("hidden_size", 768)
    sharing: Sharing = "none" if kind == _ANSWERING else "all"
    return BlipConfig(
        image=VisionConfig(
            size=vision.get("image_size", 384),
            patch=vision.get("patch_size", 16),
            width=width,
            layers=vision.get("num_hidden_layers", 12),
            heads=vision.get("num_attention_heads", 12),
            mlp_ratio=vision.get("intermediate_size", 3072) / width,
            activation=activation_of(vision.get("hidden_act", "gelu")),  # type: ignore[arg-type]
            epsilon=vision.get("layer_norm_eps", 1e-5),
        ),
        text=TextConfig(
            vocabulary=text.get("vocab_size", 30524),
            context=text.get("max_position_embeddings", 512),
            width=words,
            layers=text.get("num_hidden_layers", 12),
            heads=text.get("num_attention_heads", 8),
            mlp_ratio=text.get("intermediate_size", 3072) / words,
            activation=activation_of(text.get("hidden_act", "gelu")),  # type: ignore[arg-type]
            epsilon=text.get("layer_norm_eps", 1e-12),
            causal=False,
            pool="class",
            norm="post",
            embedding_norm=True,
            cross_width=width,
            dropout=float(text.get("hidden_dropout_prob", 0.0)),
            attention_dropout=float(text.get("attention_probs_dropout_prob", 0.0)),
        ),
        sharing=sharing,
        lacks=_LACKS[kind],
        end=text.get("sep_token_id", 102),
        pad=text.get("pad_token_id", 0),
        embedding=theirs.get("image_text_hidden_size", 256),
        queue=0,
    )


def from_transformers(source: str) -> Model:
    """A BLIP from a folder in `transformers` layout, or by its name on the hub.

    Raises:
        WeightsError: if a file is missing, the class has no counterpart here, or a tensor is unaccounted for.
    """
    folder = open_folder(source)
    theirs = read_config(folder)
    kind = (theirs.get("architectures") or [_CAPTIONING])[0]
    if theirs.get("model_type", "blip") != "blip" or kind not in get_args(Kind):
        raise WeightsError(
            f"{folder} holds a {kind} of type {theirs.get('model_type', 'blip')!r}; of BLIP's classes {', '.join(get_args(Kind))} "
            "can be converted"
        )
    config = blip_config(theirs, kind)
    start = (theirs.get("text_config") or {}).get("bos_token_id", 30522)
    if kind != _RETRIEVAL and start != config.start_decode:
        raise WeightsError(
            f"{folder} begins captions with token {start} of {config.text.vocabulary}; here it is the last but one, [DEC]"
        )
    method = Blip(config)
    assign(method, {**method.state_dict(), **theirs_to_ours(read_tensors(folder), config, kind)}, str(folder))
    method.started()
    view = read_view(folder, ViewSpec(size=config.image.size, crop="squash"))
    return Model(method, Processor(view, read_tokenizer(folder, config.text.context)))


def to_transformers(model: Model, folder: Path, kind: Kind | None = None) -> None:
    """Write a folder that the `from_pretrained` of one of their classes reads.

    Args:
        model: a BLIP with the released model's blocks.
        folder: is made.
        kind: their class; by default captioning, or retrieval where the model does not write.

    Raises:
        WeightsError: if the model is built otherwise, or lacks what the class does.
    """
    method = model.method
    if not isinstance(method, Blip):
        raise WeightsError(f"only a BLIP can be written as one of transformers'; given {type(method).__name__}")
    config, text, image = method.config, method.config.text, method.config.image
    if kind is None:
        kind = _CAPTIONING if "generate" not in config.lacks else _RETRIEVAL
    if image.stem != "patch" or image.pre_norm or text.norm != "post" or not text.embedding_norm or text.types:
        raise WeightsError(
            "transformers' BLIP cuts patches and has BERT's blocks: image.stem='patch', text.norm='post', "
            "text.embedding_norm=True, text.types=0; this model differs"
        )
    needs = {_RETRIEVAL: "match", _CAPTIONING: "generate"}.get(kind)
    if needs in config.lacks:
        raise WeightsError(f"a {kind} needs the weights of `{needs}`, which this model lacks")
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, ours_to_theirs(method.state_dict(), config, kind))
    write_json(folder / "config.json", _their_config(config, kind))
    view = model.processor.view
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "BlipImageProcessor", "do_resize": True,
            "size": {"height": view.size, "width": view.size}, "do_rescale": True, "rescale_factor": 1 / 255,
            "do_normalize": True, "image_mean": list(view.mean), "image_std": list(view.std), "do_convert_rgb": True,
            "resample": resample_number(view),
        },
    )  # fmt: skip
    write_tokenizer(folder, model.processor)


def _their_config(config: BlipConfig, kind: Kind) -> dict[str, Any]:
    def blocks(part: VisionConfig | TextConfig) -> dict[str, Any]:
        return {
            "hidden_size": part.width, "num_hidden_layers": part.layers, "num_attention_heads": part.heads,
            "intermediate_size": int(part.width * part.mlp_ratio), "layer_norm_eps": part.epsilon,
            "hidden_act": their_activation(part.activation),
        }  # fmt: skip

    text = {
        "model_type": "blip_text_model", "vocab_size": config.text.vocabulary, "is_decoder": True,
        "max_position_embeddings": config.text.context, "encoder_hidden_size": config.image.width,
        "bos_token_id": config.start_decode, "sep_token_id": config.end, "eos_token_id": config.end,
        "pad_token_id": config.pad, "label_smoothing": config.smoothing, "hidden_dropout_prob": config.text.dropout,
        "attention_probs_dropout_prob": config.text.attention_dropout, **blocks(config.text),
    }  # fmt: skip
    vision = {"model_type": "blip_vision_model", "image_size": config.image.size, "patch_size": config.image.patch}
    return {
        "architectures": [kind],
        "model_type": "blip",
        "image_text_hidden_size": config.embedding,
        "text_config": text,
        "vision_config": {**vision, **blocks(config.image)},
    }
