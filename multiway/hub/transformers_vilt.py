"""ViLT checkpoints of the `transformers` library, in and out.

Four of its classes have a counterpart here, told apart by their heads: `ViltModel` (none), `ViltForMaskedLM` (words),
`ViltForImageAndTextRetrieval` (one score, the log-odds of matching) and `ViltForQuestionAnswering` (answers). Their layout keeps
query, key and value apart and the class token's position in one table with the patches'; ours merges the first and splits the
last. Nothing is computed on the way in, so the round trip is exact to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

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
from multiway.methods.vilt import Vilt, ViltConfig

__all__ = ["Kind", "from_transformers", "ours_to_theirs", "theirs_to_ours", "to_transformers", "vilt_config"]

Kind = Literal["ViltModel", "ViltForMaskedLM", "ViltForImageAndTextRetrieval", "ViltForQuestionAnswering"]
_BASE: Kind = "ViltModel"
_PATCH = "embeddings.patch_embeddings.projection.weight"
_POSITIONS = "embeddings.position_embeddings"
_CLASS = "embeddings.cls_token"
_WORDS = "embeddings.text_embeddings.word_embeddings.weight"
_DECODER = "mlm_score.decoder.weight"


def _renamed(config: ViltConfig) -> Iterator[tuple[str, str]]:
    """(ours, theirs) for tensors of the encoder that differ in name alone."""
    text = "embeddings.text_embeddings"
    yield "text.words.weight", _WORDS
    yield "text.positions", f"{text}.position_embeddings.weight"
    if config.types:
        yield "text.types.weight", f"{text}.token_type_embeddings.weight"
    yield "modalities.weight", "embeddings.token_type_embeddings.weight"
    yield "patches.project.bias", "embeddings.patch_embeddings.projection.bias"
    pairs = [("text.norm.0", f"{text}.LayerNorm"), ("transformer.norm", "layernorm"), ("pooler", "pooler.dense")]
    for layer in range(config.layers):
        ours, theirs = f"transformer.blocks.{layer}", f"encoder.layer.{layer}"
        pairs += [(f"{ours}.attention_norm", f"{theirs}.layernorm_before"),
                  (f"{ours}.mlp_norm", f"{theirs}.layernorm_after"),
                  (f"{ours}.attention.out", f"{theirs}.attention.output.dense"),
                  (f"{ours}.mlp.up", f"{theirs}.intermediate.dense"),
                  (f"{ours}.mlp.down", f"{theirs}.output.dense")]  # fmt: skip
    yield from _both(pairs)


def _heads(kind: Kind) -> Iterator[tuple[str, str]]:
    """(ours, theirs) for the heads that differ in name alone."""
    if kind == "ViltForMaskedLM":
        yield "word_head.bias", "mlm_score.decoder.bias"
        transform = "mlm_score.transform"
        yield from _both([("word_head.dense", f"{transform}.dense"), ("word_head.norm", f"{transform}.LayerNorm")])
    if kind == "ViltForQuestionAnswering":
        yield from _both([(f"answer_head.{part}", f"classifier.{part}") for part in (0, 1, 3)])


def _both(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for ours, theirs in pairs:
        for tensor in ("weight", "bias"):
            yield f"{ours}.{tensor}", f"{theirs}.{tensor}"


def _merged(config: ViltConfig) -> Iterator[tuple[str, list[str]]]:
    """(our merged projection, their query, key and value)."""
    for layer in range(config.layers):
        for tensor in ("weight", "bias")[: 1 + config.qkv_bias]:
            inner = f"encoder.layer.{layer}.attention.attention"
            parts = [f"{inner}.{part}.{tensor}" for part in ("query", "key", "value")]
            yield f"transformer.blocks.{layer}.attention.qkv.{tensor}", parts


def theirs_to_ours(theirs: dict[str, Tensor], config: ViltConfig, kind: Kind) -> dict[str, Tensor]:
    """Tensors of one of their classes under our names.

    A retrieval head's one score becomes two logits whose difference it is: 0 for no, the score for yes.

    Raises:
        WeightsError: naming tensors that are missing, or that nothing here accounts for.
    """
    prefix = "" if kind == _BASE else "vilt."
    # Position numbers and segment types 0, 0, 0, ... that old versions stored; they carry nothing.
    left = {n: t for n, t in theirs.items() if not n.endswith(("position_ids", "text_embeddings.token_type_ids"))}
    ours: dict[str, Tensor] = {}
    try:
        for own, their in _renamed(config):
            ours[own] = left.pop(prefix + their)
        for own, parts in _merged(config):
            ours[own] = torch.cat([left.pop(prefix + part) for part in parts])
        ours["patches.project.weight"] = left.pop(prefix + _PATCH).flatten(1)
        ours["class_token"] = left.pop(prefix + _CLASS).flatten()
        positions = left.pop(prefix + _POSITIONS).squeeze(0)
        if kind == "ViltForMaskedLM":
            _take_words(left, ours, config)
        for own, their in _heads(kind):
            ours[own] = left.pop(their)
        if kind == "ViltForImageAndTextRetrieval":
            for tensor in ("weight", "bias"):
                score = left.pop(f"rank_output.{tensor}")
                ours[f"match_head.{tensor}"] = torch.cat([torch.zeros_like(score), score])
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a {kind}?") from error
    ours["class_position"], ours["positions"] = positions[0], positions[1:]
    if left:
        raise WeightsError(f"the checkpoint has tensors that a {kind} does not: {', '.join(sorted(left)[:8])}")
    return ours


def _take_words(left: dict[str, Tensor], ours: dict[str, Tensor], config: ViltConfig) -> None:
    """The word head's matrix, where it is not the embedding again, and a second copy of its bias."""
    decoder = left.pop(_DECODER, ours["text.words.weight"])
    if not config.tied_words:
        ours["word_matrix.weight"] = decoder
    elif not torch.equal(decoder, ours["text.words.weight"]):
        raise WeightsError(f"{_DECODER} differs from the word embedding; build the config with tied_words=False")
    again = left.pop("mlm_score.bias", None)
    bias = left.setdefault("mlm_score.decoder.bias", again) if again is not None else left["mlm_score.decoder.bias"]
    if again is not None and not torch.equal(again, bias):
        raise WeightsError("mlm_score.bias and mlm_score.decoder.bias differ, and a word head has one bias")


def ours_to_theirs(ours: dict[str, Tensor], config: ViltConfig, kind: Kind) -> dict[str, Tensor]:
    """Our tensors under the names of one of their classes; the inverse of `theirs_to_ours`.

    A class of theirs has one head at most; the others of ours are left behind. The two logits of matching become one score, their
    difference.

    Raises:
        WeightsError: if the head that the class needs is not there.
    """
    needed = {"ViltForMaskedLM": "word_head.bias", "ViltForImageAndTextRetrieval": "match_head.bias",
              "ViltForQuestionAnswering": "answer_head.0.bias"}.get(kind)  # fmt: skip
    if needed is not None and needed not in ours:
        raise WeightsError(f"a {kind} needs the head that this ViLT lacks ({needed}); choose another of their classes")
    prefix = "" if kind == _BASE else "vilt."
    theirs = {prefix + their: ours[own] for own, their in _renamed(config)}
    for own, parts in _merged(config):
        theirs |= {prefix + part: each for part, each in zip(parts, ours[own].chunk(3), strict=True)}
    patch = config.patch
    theirs[prefix + _PATCH] = ours["patches.project.weight"].unflatten(1, (3, patch, patch))
    theirs[prefix + _CLASS] = ours["class_token"][None, None]
    theirs[prefix + _POSITIONS] = torch.cat([ours["class_position"][None], ours["positions"]])[None]
    theirs |= {their: ours[own] for own, their in _heads(kind)}
    if kind == "ViltForMaskedLM":
        theirs[_DECODER] = ours["text.words.weight" if config.tied_words else "word_matrix.weight"]
    if kind == "ViltForImageAndTextRetrieval":
        for tensor in ("weight", "bias"):
            no, yes = ours[f"match_head.{tensor}"].chunk(2)
            theirs[f"rank_output.{tensor}"] = yes - no
    return theirs


def vilt_config(theirs: dict[str, Any], kind: Kind, tied_words: bool = True) -> ViltConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (ViLT-B/32)."""
    width = theirs.get("hidden_size", 768)
    names = {int(number): name for number, name in (theirs.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}).items()}
    return ViltConfig(
        vocabulary=theirs.get("vocab_size", 30522),
        context=theirs.get("max_position_embeddings", 40),
        size=theirs.get("image_size", 384),
        patch=theirs.get("patch_size", 32),
        keep=max(0, theirs.get("max_image_length", -1)),
        width=width,
        layers=theirs.get("num_hidden_layers", 12),
        heads=theirs.get("num_attention_heads", 12),
        mlp_ratio=theirs.get("intermediate_size", 4 * width) / width,
        activation=activation_of(theirs.get("hidden_act", "gelu")),  # type: ignore[arg-type]
        epsilon=theirs.get("layer_norm_eps", 1e-12),
        dropout=float(theirs.get("hidden_dropout_prob", 0.0)),
        attention_dropout=float(theirs.get("attention_probs_dropout_prob", 0.0)),
        qkv_bias=theirs.get("qkv_bias", True),
        init_std=theirs.get("initializer_range", 0.02),
        types=theirs.get("type_vocab_size", 2),
        modalities=theirs.get("modality_type_vocab_size", 2),
        tied_words=tied_words,
        matching=kind == "ViltForImageAndTextRetrieval",
        words=kind == "ViltForMaskedLM",
        answers=tuple(names[number] for number in sorted(names)) if kind == "ViltForQuestionAnswering" else (),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def from_transformers(source: str) -> Model:
    """A ViLT from a folder in `transformers` layout, or by its name on the hub.

    Pictures are squeezed into a square of the configured size, where theirs keep their aspect ratio; pass pixels of another
    shape to `encode_image` for that.

    Raises:
        WeightsError: if a file is missing, the class has no counterpart here, or a tensor is unaccounted for.
    """
    folder = open_folder(source)
    theirs = read_config(folder)
    kind = (theirs.get("architectures") or [_BASE])[0]
    if theirs.get("model_type", "vilt") != "vilt" or kind not in get_args(Kind):
        raise WeightsError(
            f"{folder} holds a {kind} of type {theirs.get('model_type', 'vilt')!r}; of ViLT's classes "
            f"{', '.join(get_args(Kind))} can be converted"
        )
    tensors = read_tensors(folder)
    words = tensors.get(f"vilt.{_WORDS}")
    tied = _DECODER not in tensors or (words is not None and torch.equal(tensors[_DECODER], words))
    config = vilt_config(theirs, kind, tied)
    method = Vilt(config)
    assign(method, theirs_to_ours(tensors, config, kind), str(folder))
    view = read_view(folder, ViewSpec(size=config.size, mean=config.mean, std=config.std))
    # Their aspect ratio is kept and nothing cut off; of the squares, the one in which nothing is lost either.
    return Model(method, Processor(replace(view, crop="squash"), read_tokenizer(folder, config.context)))


def to_transformers(model: Model, folder: Path, kind: Kind | None = None) -> None:
    """Write a folder that the `from_pretrained` of one of their classes reads.

    Args:
        model: a ViLT whose patches are cut and projected.
        folder: is made.
        kind: their class, which keeps one head at most; by default that of answers, words, matching, whichever is there first.

    Raises:
        WeightsError: if the model is no such ViLT, or lacks the head.
    """
    method = model.method
    if not isinstance(method, Vilt) or method.config.stem != "patch":
        raise WeightsError(
            "only a ViLT whose patches are cut and projected (stem='patch') has a counterpart in transformers"
        )
    config = method.config
    if not config.types:
        raise WeightsError("transformers' ViLT has segment types and this model has none; train it with method.types=2")
    if kind is None:
        kind = ("ViltForQuestionAnswering" if config.answers else "ViltForMaskedLM" if config.words
                else "ViltForImageAndTextRetrieval" if config.matching else _BASE)  # fmt: skip
    tensors = ours_to_theirs(method.state_dict(), config, kind)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, tensors)
    write_json(folder / "config.json", _their_config(config, kind))
    view = model.processor.view
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "ViltImageProcessor", "do_resize": True, "size": {"shortest_edge": view.size},
            "size_divisor": config.patch, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
            "image_mean": list(view.mean), "image_std": list(view.std), "do_pad": True, "resample": resample_number(view),
        },
    )  # fmt: skip
    write_tokenizer(folder, model.processor)


def _their_config(config: ViltConfig, kind: Kind) -> dict[str, Any]:
    labels = dict(enumerate(config.answers))
    return {
        "model_type": "vilt", "architectures": [kind], "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context, "image_size": config.size, "patch_size": config.patch,
        "max_image_length": config.keep or -1, "hidden_size": config.width, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "intermediate_size": int(config.width * config.mlp_ratio),
        "hidden_act": their_activation(config.activation), "layer_norm_eps": config.epsilon, "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout, "qkv_bias": config.qkv_bias,
        "initializer_range": config.init_std, "type_vocab_size": config.types, "modality_type_vocab_size": config.modalities,
        "tie_word_embeddings": config.tied_words,
        **({"id2label": labels, "label2id": {name: number for number, name in labels.items()}} if labels else {}),
    }  # fmt: skip
