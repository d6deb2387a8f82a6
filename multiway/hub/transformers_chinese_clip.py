"""Chinese CLIP of the `transformers` library (`ChineseCLIPModel`), in and out.

Yang et al., 2022, arXiv 2211.01335: CLIP's picture tower beside a BERT, whose class token is projected. It is a `clip` here whose text
tower is BERT's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import bert_tables
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill, state_of
from multiway.hub.rules import same
from multiway.hub.tokenizer_files import read_tokenizer, write_tokenizer
from multiway.hub.transformers_bert import text_config, their_text
from multiway.hub.transformers_clip import clip_picture, picture_config, their_picture
from multiway.hub.transformers_folder import open_folder, read_config, read_tensors, write_json, write_tensors
from multiway.hub.transformers_view import read_view, write_view
from multiway.methods.clip import Clip, ClipConfig
from multiway.nn.vit import VisionConfig

__all__ = ["TABLE", "chinese_clip_config", "from_transformers", "is_chinese", "to_transformers"]

KIND = "ChineseCLIPModel"

TABLE = Table(
    KIND,
    [
        *same(
            ("log_scale", "logit_scale"),
            ("image_projection.weight", "visual_projection.weight"),
            ("text_projection.weight", "text_projection.weight"),
        ),
        *clip_picture("image", "vision_model"),
        *bert_tables.embedding("text.embed", "text_model.embeddings"),
        *bert_tables.blocks("text.transformer.blocks", "text_model.encoder.layer"),
    ],
    apart=[(r"^text_model\.pooler\.", "a linear map and tanh on the first token")],
)


def chinese_clip_config(theirs: Mapping[str, Any]) -> ClipConfig:
    """Our config from their `config.json`, whose missing fields mean transformers' defaults.

    Raises:
        WeightsError: for what has no counterpart here.
    """
    return ClipConfig(
        image=picture_config(theirs.get("vision_config") or {}),
        text=text_config(theirs.get("text_config") or {}),
        embedding=theirs.get("projection_dim", 512),
    )


def is_chinese(config: ClipConfig) -> bool:
    """Whether a CLIP's text tower is BERT's, as Chinese CLIP has it."""
    text = config.text
    built = (text.norm, text.embedding_norm, text.causal, text.pool)
    return built == ("post", True, False, "class") and text.types > 0 and isinstance(config.image, VisionConfig)


def from_transformers(source: str, allow: Sequence[str] = ()) -> Model:
    """A CLIP from a folder in `transformers` layout, or by its name on the hub (`OFA-Sys/chinese-clip-vit-base-patch16`).

    Raises:
        WeightsError: if a file is missing, it is another architecture, or a tensor is unaccounted for.
    """
    folder = open_folder(source)
    theirs = read_config(folder)
    config = chinese_clip_config(theirs)
    method = Clip(config)
    report = fill(method, TABLE, read_tensors(folder), str(folder), allow)
    assert isinstance(config.image, VisionConfig)
    view = read_view(folder, ViewSpec(size=config.image.size))
    return Model(method, Processor(view, read_tokenizer(folder, config.text.context)), report=report)


def to_transformers(model: Model, folder: Path) -> None:
    """Write a folder that `ChineseCLIPModel.from_pretrained` reads.

    Raises:
        WeightsError: if the model is no CLIP of this form.
    """
    method = model.method
    if not isinstance(method, Clip) or not is_chinese(method.config):
        raise WeightsError("only a CLIP with a ViT and a text tower as BERT's can be written as a ChineseCLIPModel")
    config, image = method.config, method.config.image
    assert isinstance(image, VisionConfig)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, TABLE.write(state_of(method)))
    special = model.processor.tokenizer.special if model.processor.tokenizer else {}
    write_json(
        folder / "config.json",
        {
            "architectures": [KIND], "model_type": "chinese_clip", "projection_dim": config.embedding,
            "text_config": {"model_type": "chinese_clip_text_model", **their_text(config.text), "pad_token_id": special.get("pad", 0)},
            "vision_config": {"model_type": "chinese_clip_vision_model", **their_picture(image), "projection_dim": config.embedding},
        },
    )  # fmt: skip
    write_view(folder, model.processor.view, "ChineseCLIPImageProcessor")
    write_tokenizer(folder, model.processor)
