"""BERT and RoBERTa of the `transformers` library, in and out, with their head on masked words or without.

Devlin et al., 2019, arXiv 1810.04805; Liu et al., 2019, arXiv 1907.11692. RoBERTa is the same network: its positions begin at row 2 of
their table (what is before is for padding and is never read of a text), it has one segment type, and its head has other names. Poolers and
the classifier of next sentences are left behind, and it is said so. An encoder without the head (`BertModel`) reads and is tuned; it
guesses no words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import bert_tables
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill
from multiway.hub.rules import Rule, both, laid_out, same
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
from multiway.methods.bert import Bert, BertConfig
from multiway.nn.text import TextConfig

__all__ = [
    "KINDS",
    "WRITES",
    "bert_config",
    "from_transformers",
    "offset_positions",
    "table",
    "text_config",
    "their_text",
    "to_transformers",
]

KINDS: dict[str, tuple[str, ...]] = {
    "bert": ("BertForMaskedLM", "BertForPreTraining", "BertModel"),
    "roberta": ("RobertaForMaskedLM", "RobertaModel"),
}
WRITES = ("BertForMaskedLM", "BertModel", "RobertaForMaskedLM", "RobertaModel")
_UNREAD = 2  # rows before the first position of a RoBERTa


def table(family: str, root: str = "", *, head: bool = True) -> Table:
    """Which tensors are which.

    Args:
        family: `bert` or `roberta`.
        root: what the encoder's names begin with, by default the family's in a class with a head.
        head: whether there is one.
    """
    root = root or (f"{family}." if head else "")
    rules = [
        *bert_tables.embedding("text.embed", f"{root}embeddings"),
        *bert_tables.blocks("text.transformer.blocks", f"{root}encoder.layer"),
    ]
    copies: list[tuple[str, str]] = []
    words = f"{root}embeddings.word_embeddings.weight"
    if family == "roberta":
        rules = [*offset_positions("text.embed.positions", f"{root}embeddings.position_embeddings.weight"), *rules]
        rules += [
            *both(("words.dense", "lm_head.dense"), ("words.norm", "lm_head.layer_norm")),
            *same(("words.bias", "lm_head.bias")),
        ]
        copies = [("lm_head.decoder.bias", "lm_head.bias"), ("lm_head.decoder.weight", words)] if head else []
    else:
        rules += bert_tables.word_head("words", "cls.predictions")
        copies = (
            [("cls.predictions.decoder.bias", "cls.predictions.bias"), ("cls.predictions.decoder.weight", words)]
            if head
            else []
        )
    apart = [
        (r"(^|\.)pooler\.", "a linear map and tanh on the first token"),
        (r"^cls\.seq_relationship\.", "a classifier of next sentences"),
    ]
    return Table(KINDS[family][0 if head else -1], rules, copies, apart=apart)


def offset_positions(ours: str, theirs: str) -> list[Rule]:
    """RoBERTa's positions, without the rows that no text reads; these are written as zeros."""

    def write(places: Tensor) -> Tensor:
        return torch.cat([places.new_zeros(_UNREAD, places.shape[1]), places])

    return laid_out(ours, theirs, lambda places: places[_UNREAD:], write)


def text_config(theirs: Mapping[str, Any], family: str = "bert") -> TextConfig:
    """Our text encoder from their config, whose missing fields mean transformers' defaults (BERT-base).

    Raises:
        WeightsError: for what has no counterpart here.
    """
    width = theirs.get("hidden_size", 768)
    plain = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
    other = {name: theirs[name] for name, value in plain.items() if theirs.get(name, value) != value}
    if other:
        raise WeightsError(f"this {family} has {other}; expected absolute positions and an encoder")
    roberta = family == "roberta"
    if roberta and theirs.get("pad_token_id", 1) != _UNREAD - 1:
        raise WeightsError(
            f"this {family} counts positions from pad_token_id={theirs.get('pad_token_id')}; those that fill up with id 1 can be converted, as "
            "all that were released"
        )
    return TextConfig(
        vocabulary=theirs.get("vocab_size", 50265 if roberta else 30522),
        context=theirs.get("max_position_embeddings", 512) - (_UNREAD if roberta else 0),
        width=width,
        layers=theirs.get("num_hidden_layers", 12),
        heads=theirs.get("num_attention_heads", 12),
        mlp_ratio=mlp_ratio(width, theirs.get("intermediate_size", 3072)),
        activation=activation_of(theirs.get("hidden_act", "gelu")),  # type: ignore[arg-type]
        causal=False,
        pool="class",
        norm="post",
        epsilon=theirs.get("layer_norm_eps", 1e-12),
        types=theirs.get("type_vocab_size", 2),
        embedding_norm=True,
        dropout=float(theirs.get("hidden_dropout_prob", 0.1)),
        attention_dropout=float(theirs.get("attention_probs_dropout_prob", 0.1)),
    )


def bert_config(theirs: Mapping[str, Any], *, head: bool = True) -> BertConfig:
    """Our config from their `config.json`.

    Raises:
        WeightsError: as of `text_config`; or if the head would have another activation than GELU.
    """
    text = text_config(theirs, theirs.get("model_type", "bert"))
    if head and theirs.get("model_type", "bert") == "bert":  # a RoBERTa's head has GELU whatever the blocks have
        bert_tables.require_gelu(text.activation)
    return BertConfig(text, head)


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A BERT from a folder in `transformers` layout, or by its name on the hub (`bert-base-uncased`, `roberta-base`).

    Raises:
        WeightsError: if a file is missing, the class is another, or a tensor is unaccounted for.
    """
    folder = open_folder(source)
    theirs = read_config(folder)
    family = theirs.get("model_type", "bert")
    kind = (theirs.get("architectures") or [KINDS[family][0]])[0]
    if kind not in KINDS[family]:
        raise WeightsError(f"{folder} holds a {kind}; expected one of {', '.join(KINDS[family])}")
    head = kind != KINDS[family][-1]
    config = bert_config(theirs, head=head)
    method = Bert(config)
    # The oldest releases call a norm's weight and bias as TensorFlow does.
    tensors = {
        name.replace(".gamma", ".weight").replace(".beta", ".bias"): each for name, each in read_tensors(folder).items()
    }
    report = fill(method, table(family, head=head), tensors, str(folder), allow)
    return Model(method, Processor(ViewSpec(), read_tokenizer(folder, config.text.context)), report=report)


def to_transformers(model: Model, folder: Path, kind: str | None = None) -> None:
    """Write a folder that the `from_pretrained` of one of their classes reads.

    Args:
        model: a BERT with the published one's blocks.
        folder: is made.
        kind: one of `WRITES`; by default `BertForMaskedLM`, without a head `BertModel`. A RoBERTa has one segment type.

    Raises:
        WeightsError: if the model is built otherwise, or lacks the head.
    """
    method = model.method
    if not isinstance(method, Bert):
        raise WeightsError(f"only a BERT can be written as one of transformers'; given {type(method).__name__}")
    text, head = method.config.text, method.config.head
    family = "roberta" if (kind or "").startswith("Roberta") else "bert"
    fitting = KINDS[family][0 if head else -1]
    if kind not in (None, fitting):
        raise WeightsError(
            f"this model has {'a' if head else 'no'} head on masked words and cannot be a {kind}; expected {fitting}"
        )
    built = (text.norm, text.embedding_norm, text.causal, text.pool, text.cross_width)
    if built != ("post", True, False, "class", None) or not text.types or (family == "roberta" and text.types != 1):
        raise WeightsError(
            "transformers' BERT has norms after each part, a norm of the embedding and segment types (a RoBERTa has one): "
            "--method.text.norm post --method.text.embedding-norm --method.text.types 2; this model differs: its norms are "
            f"{text.norm!r}, embedding_norm={text.embedding_norm}, types={text.types}"
        )
    if head and family == "bert":
        bert_tables.require_gelu(text.activation)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, table(family, head=head).write(method.state_dict()))
    write_json(folder / "config.json", _their_config(text, family, head, model))
    write_tokenizer(folder, model.processor)


def _their_config(text: TextConfig, family: str, head: bool, model: Model) -> dict[str, Any]:
    special = model.processor.tokenizer.special if model.processor.tokenizer else {}
    return {
        "model_type": family, "architectures": [KINDS[family][0 if head else -1]], **their_text(text),
        "max_position_embeddings": text.context + (_UNREAD if family == "roberta" else 0),
        # RoBERTa counts positions from the token after padding's, which has to be 1 for tables to begin where they do.
        "pad_token_id": 1 if family == "roberta" else special.get("pad", 0),
    }  # fmt: skip


def their_text(text: TextConfig) -> dict[str, Any]:
    """Their fields of a text encoder with BERT's blocks."""
    return {
        "vocab_size": text.vocabulary, "max_position_embeddings": text.context, "hidden_size": text.width,
        "num_hidden_layers": text.layers, "num_attention_heads": text.heads, "intermediate_size": int(text.width * text.mlp_ratio),
        "hidden_act": their_activation(text.activation), "layer_norm_eps": text.epsilon, "type_vocab_size": text.types,
        "hidden_dropout_prob": text.dropout, "attention_probs_dropout_prob": text.attention_dropout,
    }  # fmt: skip
