"""BLIP checkpoints of the `transformers` library, in and out.

Three classes of theirs hold parts of one model of ours: retrieval has the two encoding modes, captioning the writing mode,
question answering the image-grounded encoder and a decoder of its own. What a checkpoint has no weights for, our model
hides (`BlipConfig.lacks`). Out again a model of ours, however its modes share weights, can be written as each of the three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import bert_tables
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill, renamed
from multiway.hub.rules import Rule, both, leading, patches, placed
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
from multiway.methods.blip import Blip, BlipConfig
from multiway.nn.decoder import SHARING, Sharing
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

__all__ = [
    "LACKS",
    "WRITES",
    "Kind",
    "blip_config",
    "from_transformers",
    "ours_to_theirs",
    "table",
    "theirs_to_ours",
    "to_transformers",
]

Kind = Literal["BlipForImageTextRetrieval", "BlipForConditionalGeneration", "BlipForQuestionAnswering"]

WRITES = _RETRIEVAL, _CAPTIONING, _ANSWERING = get_args(Kind)
_ENCODER = "text_encoder"
_DECODER = "text_decoder.bert"
_HEAD = "text_decoder.cls.predictions"
LACKS: dict[str, tuple[str, ...]] = {
    _RETRIEVAL: ("caption_likelihood", "generate"),
    _CAPTIONING: ("encode_text", "compare", "match", "match_with_maps"),
    _ANSWERING: ("encode_text", "compare", "match", "match_with_maps", "caption_likelihood", "generate"),
}
_NEEDS: dict[Kind, str] = {_CAPTIONING: "generate", _RETRIEVAL: "match"}
_PICTURE = "student.image."


def table(config: BlipConfig, kind: str, picture: Sequence[Rule] = ()) -> Table:
    """Which tensors are which in one of their classes. What its two text transformers share here is written twice there.

    Args:
        config: of ours.
        kind: one of `Kind`, or another name for what has all modes, as the authors' pre-training checkpoint.
        picture: rules for the ViT, where it is not theirs.
    """
    encoder, decoder = "text_encoder", "text_decoder.bert"
    rules = [*(picture or _picture())]
    copies: list[tuple[str, str]] = []
    if kind != _CAPTIONING:
        rules += _text("student.text.embed", encoder)
        for part in bert_tables.PARTS:
            rules += bert_tables.block(part, f"student.text.transformer.blocks.*.{part}", f"{encoder}.encoder.layer.*")
    if kind not in (_CAPTIONING, _ANSWERING):
        rules += both(
            ("student.image_projection", "vision_proj"),
            ("student.text_projection", "text_proj"),
            ("match_head", "itm_head"),
        )
    if kind == _RETRIEVAL:
        return Table(kind, rules, copies)
    apart = config.sharing == "none"
    own = _text("decoder.embed" if apart else "student.text.embed", decoder)
    for part in bert_tables.PARTS:
        own += bert_tables.block(part, _place(config, part), f"{decoder}.encoder.layer.*")
    shared = [rule for rule in own if kind != _CAPTIONING and rule.ours[0].startswith("student.")]
    copies += [(each, each.replace(decoder, encoder, 1)) for rule in shared for each in rule.theirs]
    rules += [rule for rule in own if rule not in shared]
    rules += bert_tables.word_head("decoder.words", _HEAD)
    # Of the two, the second is found again among what has just been copied.
    copies.append((f"{_HEAD}.decoder.weight", f"{decoder}.embeddings.word_embeddings.weight"))
    copies.append((f"{_HEAD}.decoder.bias", f"{_HEAD}.bias"))
    return Table(kind, rules, copies)


def _picture() -> list[Rule]:
    own, their = f"{_PICTURE}transformer.blocks.*", "vision_model.encoder.layers.*"
    return [
        *patches(f"{_PICTURE}patches.project", "vision_model.embeddings.patch_embedding"),
        *leading((f"{_PICTURE}class_token", "vision_model.embeddings.class_embedding")),
        *placed(_PICTURE, "vision_model.embeddings.position_embedding"),
        *both(
            (f"{_PICTURE}transformer.norm", "vision_model.post_layernorm"),
            (f"{own}.attention_norm", f"{their}.layer_norm1"),
            (f"{own}.attention.qkv", f"{their}.self_attn.qkv"),
            (f"{own}.attention.out", f"{their}.self_attn.projection"),
            (f"{own}.mlp_norm", f"{their}.layer_norm2"),
            (f"{own}.mlp.up", f"{their}.mlp.fc1"),
            (f"{own}.mlp.down", f"{their}.mlp.fc2"),
        ),
    ]


def _text(ours: str, theirs: str) -> list[Rule]:
    return bert_tables.embedding(ours, f"{theirs}.embeddings")


def _place(config: BlipConfig, part: str) -> str:
    """Where a part of the decoder's blocks is among ours: its own, or the one that it shares."""
    if config.sharing == "none":
        return f"decoder.blocks.blocks.*.{part}"
    return f"decoder.own.*.{part}" if part in SHARING[config.sharing] else f"student.text.transformer.blocks.*.{part}"


def ours_to_theirs(method: Blip, kind: Kind) -> dict[str, Tensor]:
    """Our tensors under the names of one of their classes. What the class has no place for stays behind."""
    found = table(method.config, kind)
    return found.write({name: each for name, each in method.state_dict().items() if found.has(name)})


def blip_config(
    theirs: dict[str, Any],
    kind: str,
    sharing: Sharing | None = None,
    lacks: tuple[str, ...] | None = None,
    queue: int = 0,
) -> BlipConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults.

    Args:
        theirs: the parsed file.
        kind: their class.
        sharing: what the modes share. By default a checkpoint of one text transformer is one whose modes share all; question
            answering has two that share nothing.
        lacks: abilities without weights; by default those of the class.
        queue: rows of the queue.
    """
    vision, text = theirs.get("vision_config") or {}, theirs.get("text_config") or {}
    width, words = vision.get("hidden_size", 768), text.get("hidden_size", 768)
    if sharing is None:
        sharing = "none" if kind == _ANSWERING else "all"
    return BlipConfig(
        image=VisionConfig(
            size=vision.get("image_size", 384),
            patch=vision.get("patch_size", 16),
            width=width,
            layers=vision.get("num_hidden_layers", 12),
            heads=vision.get("num_attention_heads", 12),
            mlp_ratio=mlp_ratio(width, vision.get("intermediate_size", 3072)),
            activation=activation_of(vision.get("hidden_act", "gelu")),  # type: ignore[arg-type]
            epsilon=vision.get("layer_norm_eps", 1e-5),
        ),
        text=TextConfig(
            vocabulary=text.get("vocab_size", 30524),
            context=text.get("max_position_embeddings", 512),
            width=words,
            layers=text.get("num_hidden_layers", 12),
            heads=text.get("num_attention_heads", 8),
            mlp_ratio=mlp_ratio(words, text.get("intermediate_size", 3072)),
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
        lacks=LACKS[kind] if lacks is None else lacks,
        end=text.get("sep_token_id", 102),
        pad=text.get("pad_token_id", 0),
        embedding=theirs.get("image_text_hidden_size", 256),
        queue=queue,
    )


def theirs_to_ours(theirs: Mapping[str, Tensor], config: BlipConfig, kind: Kind) -> dict[str, Tensor]:
    """Their tensors under our names, of a model in memory; see `renamed`."""
    return renamed(table(config, kind), theirs, lambda: Blip(config))


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
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
    if kind != _RETRIEVAL:
        bert_tables.require_gelu(config.text.activation)
    method = Blip(config)
    found = table(config, kind)
    lacks = [name for name in method.state_dict() if not found.has(name)]
    report = fill(method, found, read_tensors(folder), str(folder), allow, lacks)
    view = read_view(folder, ViewSpec(size=config.image.size, crop="squash"), squeezes=True)
    return Model(method, Processor(view, read_tokenizer(folder, config.text.context)), report=report)


def to_transformers(model: Model, folder: Path, kind: Kind | None = None) -> None:
    """Write a folder that the `from_pretrained` of one of their classes reads.

    Args:
        model: a BLIP with the released model's blocks.
        folder: is made.
        kind: their class; by default captioning, retrieval or answering, the first that the model has weights for.

    Raises:
        WeightsError: if the model is built otherwise, or lacks what the class does.
    """
    method = model.method
    if not isinstance(method, Blip):
        raise WeightsError(f"only a BLIP can be written as one of transformers'; given {type(method).__name__}")
    config, text, image = method.config, method.config.text, method.config.image
    if kind is None:
        fitting: list[Kind] = [each for each, what in _NEEDS.items() if what not in config.lacks]
        kind = fitting[0] if fitting else "BlipForQuestionAnswering"
    if image.stem != "patch" or image.pre_norm or text.norm != "post" or not text.embedding_norm or text.types:
        raise WeightsError(
            "transformers' BLIP cuts patches and has BERT's blocks: image.stem='patch', text.norm='post', "
            "text.embedding_norm=True, text.types=0; this model differs"
        )
    if kind != _RETRIEVAL:
        bert_tables.require_gelu(text.activation)
    needs = _NEEDS.get(kind)
    if needs in config.lacks:
        raise WeightsError(f"a {kind} needs the weights of `{needs}`, which this model lacks")
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, ours_to_theirs(method, kind))
    write_json(folder / "config.json", _their_config(config, kind))
    write_view(folder, model.processor.view, "BlipImageProcessor")
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
