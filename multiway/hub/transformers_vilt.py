"""ViLT checkpoints of the `transformers` library, in and out.

Five of its classes have a counterpart here, told apart by their heads: `ViltModel` (none), `ViltForMaskedLM` (words),
`ViltForImageAndTextRetrieval` (one score, the log-odds of matching), `ViltForQuestionAnswering` (answers) and
`ViltForImagesAndTextClassification` (verdicts on a text and two pictures, NLVR2). Their layout keeps
query, key and value apart and the class token's position in one table with the patches'; ours merges the first and splits the
last. Nothing is computed on the way in, so the round trip is exact to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import bert_tables
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill, renamed, state_of
from multiway.hub.rules import Rule, both, laid_out, leading, patches, placed, same
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
from multiway.hub.transformers_view import read_view, resample_number
from multiway.hub.vit_tensors import Names, blocks, older
from multiway.methods.vilt import Vilt, ViltConfig

__all__ = [
    "WRITES",
    "Kind",
    "from_transformers",
    "ours_to_theirs",
    "table",
    "theirs_to_ours",
    "tied",
    "to_transformers",
    "vilt_config",
]

Kind = Literal[
    "ViltModel",
    "ViltForMaskedLM",
    "ViltForImageAndTextRetrieval",
    "ViltForQuestionAnswering",
    "ViltForImagesAndTextClassification",
]
WRITES: tuple[str, ...] = get_args(Kind)
_VERDICTS = {"False": "false", "True": "true"}
_BASE: Kind = "ViltModel"
_WORDS = "embeddings.text_embeddings.word_embeddings.weight"
_DECODER = "mlm_score.decoder.weight"


_HEADS: dict[str, list[Rule]] = {
    _BASE: [],
    "ViltForMaskedLM": [
        *same(("word_head.bias", "mlm_score.decoder.bias"), ("word_matrix.weight", _DECODER)),
        *both(
            ("word_head.dense", "mlm_score.transform.dense"),
            ("word_head.norm", "mlm_score.transform.LayerNorm"),
        ),
    ],
    # One score, the log-odds of matching, is two logits whose difference it is: 0 for no, the score for yes.
    "ViltForImageAndTextRetrieval": [
        rule
        for each in ("weight", "bias")
        for rule in laid_out(
            f"match_head.{each}",
            f"rank_output.{each}",
            lambda score: torch.cat([torch.zeros_like(score), score]),
            lambda logits: logits[1:] - logits[:1],
        )
    ],
    "ViltForQuestionAnswering": both(*((f"answer_head.{part}", f"classifier.{part}") for part in (0, 1, 3))),
    "ViltForImagesAndTextClassification": both(*((f"judge_head.{part}", f"classifier.{part}") for part in (0, 1, 3))),
}


def table(config: ViltConfig, kind: Kind) -> Table:
    """Which tensors are which in one of their classes."""
    prefix = "" if kind == _BASE else "vilt."
    text, picture = f"{prefix}embeddings.text_embeddings", f"{prefix}embeddings.patch_embeddings.projection"
    rules = [
        *same(
            ("text.words.weight", f"{text}.word_embeddings.weight"),
            ("text.positions", f"{text}.position_embeddings.weight"),
            ("text.types.weight", f"{text}.token_type_embeddings.weight"),
            ("modalities.weight", f"{prefix}embeddings.token_type_embeddings.weight"),
        ),
        *patches("patches.project", picture),
        *leading(("class_token", f"{prefix}embeddings.cls_token")),
        *placed("", f"{prefix}embeddings.position_embeddings"),
        *both(
            ("text.norm.0", f"{text}.LayerNorm"),
            ("transformer.norm", f"{prefix}layernorm"),
            ("pooler", f"{prefix}pooler.dense"),
        ),
        *blocks("transformer.blocks.*", f"{prefix}encoder.layer.*", Names()),
    ]
    copies = []
    if kind == "ViltForMaskedLM":
        copies.append(("mlm_score.bias", "mlm_score.decoder.bias"))
        if config.tied_words:
            copies.append((_DECODER, f"{text}.word_embeddings.weight"))
    types = (r"text_embeddings\.token_type_ids$", "segment types 0, 0, 0, ...")  # which old versions stored
    return Table(kind, rules + _HEADS[kind], copies, (*Table.empty, types))


def ours_to_theirs(method: Vilt, kind: Kind) -> dict[str, Tensor]:
    """Our tensors under the names of one of their classes.

    A class of theirs has one head at most; the others of ours are left behind. The two logits of matching become one score, their
    difference.

    Raises:
        WeightsError: if the head that the class needs is not there.
    """
    ours = state_of(method)
    needed = {"ViltForMaskedLM": "word_head.bias", "ViltForImageAndTextRetrieval": "match_head.bias",
              "ViltForQuestionAnswering": "answer_head.0.bias", "ViltForImagesAndTextClassification": "judge_head.0.bias"}.get(kind)  # fmt: skip
    if needed is not None and needed not in ours:
        raise WeightsError(f"a {kind} needs the head that this ViLT lacks ({needed}); choose another of their classes")
    own = {rule.ours[0] for rule in _HEADS[kind]}
    heads = ("word_head.", "word_matrix.", "match_head.", "answer_head.", "judge_head.", "hidden_patch", "colour_head.")
    left = [name for name in ours if name.startswith(heads) and name not in own]
    theirs = table(method.config, kind).write({name: each for name, each in ours.items() if name not in left})
    theirs.pop("mlm_score.bias", None)  # their newer versions have it once
    return theirs


def tied(theirs: Mapping[str, Tensor]) -> bool:
    """Whether the word head's matrix is the word embedding."""
    words = theirs.get(f"vilt.{_WORDS}")
    return _DECODER not in theirs or (words is not None and torch.equal(theirs[_DECODER], words))


def vilt_config(theirs: dict[str, Any], kind: Kind, tied_words: bool = True) -> ViltConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults (ViLT-B/32)."""
    width = theirs.get("hidden_size", 768)
    names = {int(number): name for number, name in (theirs.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}).items()}
    labels = tuple(names[number] for number in sorted(names))
    if kind == "ViltForImagesAndTextClassification" and theirs.get("num_images", -1) != 2:
        raise WeightsError(
            f"this ViLT judges num_images={theirs.get('num_images', -1)} pictures; expected two, as NLVR2 has"
        )
    return ViltConfig(
        vocabulary=theirs.get("vocab_size", 30522),
        context=theirs.get("max_position_embeddings", 40),
        size=theirs.get("image_size", 384),
        patch=theirs.get("patch_size", 32),
        keep=max(0, theirs.get("max_image_length", -1)),
        width=width,
        layers=theirs.get("num_hidden_layers", 12),
        heads=theirs.get("num_attention_heads", 12),
        mlp_ratio=mlp_ratio(width, theirs.get("intermediate_size", 4 * width)),
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
        answers=labels if kind == "ViltForQuestionAnswering" else (),
        # NLVR2's are `False` and `True` there, and `false` and `true` in the data here.
        verdicts=tuple(_VERDICTS.get(label, label) for label in labels)
        if kind == "ViltForImagesAndTextClassification"
        else (),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def theirs_to_ours(theirs: Mapping[str, Tensor], config: ViltConfig, kind: Kind) -> dict[str, Tensor]:
    """Their tensors under our names, of a model in memory; see `renamed`."""
    return renamed(table(config, kind), theirs, lambda: Vilt(config))


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
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
    tensors = older(read_tensors(folder), Names())
    config = vilt_config(theirs, kind, tied(tensors))
    if config.words:
        bert_tables.require_gelu(config.activation)
    method = Vilt(config)
    report = fill(method, table(config, kind), tensors, str(folder), allow)
    view = read_view(folder, ViewSpec(size=config.size, mean=config.mean, std=config.std))
    # Their aspect ratio is kept and nothing cut off; of the squares, the one in which nothing is lost either.
    processor = Processor(replace(view, crop="squash"), read_tokenizer(folder, config.context))
    return Model(method, processor, report=report)


def to_transformers(model: Model, folder: Path, kind: Kind | None = None) -> None:
    """Write a folder that the `from_pretrained` of one of their classes reads.

    Args:
        model: a ViLT whose patches are cut and projected.
        folder: is made.
        kind: their class, which keeps one head at most; by default that of answers, verdicts, words, matching, whichever is there first.

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
        kind = ("ViltForQuestionAnswering" if config.answers else "ViltForImagesAndTextClassification" if config.verdicts
                else "ViltForMaskedLM" if config.words else "ViltForImageAndTextRetrieval" if config.matching else _BASE)  # fmt: skip
    if kind == "ViltForMaskedLM":
        bert_tables.require_gelu(config.activation)
    tensors = ours_to_theirs(method, kind)
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
    judges = kind == "ViltForImagesAndTextClassification"
    labels = dict(enumerate(config.verdicts if judges else config.answers))
    return {
        "model_type": "vilt", "architectures": [kind], "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context, "image_size": config.size, "patch_size": config.patch,
        "max_image_length": config.keep or -1, "hidden_size": config.width, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "intermediate_size": int(config.width * config.mlp_ratio),
        "hidden_act": their_activation(config.activation), "layer_norm_eps": config.epsilon, "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout, "qkv_bias": config.qkv_bias,
        "initializer_range": config.init_std, "type_vocab_size": config.types, "modality_type_vocab_size": config.modalities,
        "tie_word_embeddings": config.tied_words, **({"num_images": 2} if judges else {}),
        **({"id2label": labels, "label2id": {name: number for number, name in labels.items()}} if labels else {}),
    }  # fmt: skip
