"""Whose weights can be read and written, and which module knows them.

Plain tables, so that listing the layouts imports none of them:

`LAYOUTS`        folders of `transformers` by `model_type` in their `config.json`; modules with `from_transformers(source, allow) -> Model`
`COUNTERPARTS`   methods of which `transformers` has a counterpart; modules with `to_transformers(model, folder)`
`RELEASES`       checkpoint files as their authors' code writes them, told by names of tensors; `from_state(tensors, file, allow) -> Model`
`WRITERS`        what `multiway convert --layout` writes
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from torch import Tensor

from multiway.data.source import DataError
from multiway.hub.checkpoint_file import read_checkpoint
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.open_clip_folder import CONFIG_FILE
from multiway.hub.origin import of_others
from multiway.hub.transformers_folder import open_folder, read_config, read_json, stated_licence
from multiway.methods.clip import Clip
from multiway.nn.text import TextEmbed
from multiway.nn.vit import VisionTransformer

__all__ = [
    "COUNTERPARTS",
    "LAYOUTS",
    "RELEASES",
    "WRITERS",
    "from_file",
    "open_foreign",
    "to_open_clip",
    "to_torchscale",
    "to_transformers",
]

LAYOUTS: dict[str, str] = {
    "align": "multiway.hub.transformers_parts",
    "beit": "multiway.hub.transformers_beit",
    "bert": "multiway.hub.transformers_bert",
    "blip": "multiway.hub.transformers_blip",
    "bridgetower": "multiway.hub.transformers_parts",
    "chinese_clip": "multiway.hub.transformers_chinese_clip",
    "clip": "multiway.hub.transformers_clip",
    "convnext": "multiway.hub.transformers_convnext",
    "deit": "multiway.hub.transformers_deit",
    "dinov2": "multiway.hub.transformers_dinov2",
    "dinov2_with_registers": "multiway.hub.transformers_dinov2",
    "flava": "multiway.hub.transformers_parts",
    "resnet": "multiway.hub.transformers_resnet",
    "roberta": "multiway.hub.transformers_bert",
    "siglip": "multiway.hub.transformers_siglip",
    "swin": "multiway.hub.transformers_swin",
    "vilt": "multiway.hub.transformers_vilt",
    "vit": "multiway.hub.transformers_vit",
    "vit_mae": "multiway.hub.transformers_vitmae",
}

COUNTERPARTS: dict[str, str] = {
    **{name: f"multiway.hub.transformers_{name}" for name in ("beit", "bert", "blip", "clip", "siglip", "vilt")},
    "mae": "multiway.hub.transformers_vitmae",
    **dict.fromkeys(("picture-encoder", "dino", "ibot", "moco", "moco-v3", "swav"), "multiway.hub.picture_encoders"),
}

# What it is called -> (its module, names of tensors that all have to be there, `a|b` one of two, `!a` not there). The first that fits
# counts.
RELEASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ALBEF (salesforce/ALBEF)": (
        "multiway.hub.release_albef",
        (
            "visual_encoder.cls_token",
            "temp",
            "text_encoder.encoder.layer.0.output.dense.weight|text_encoder.bert.encoder.layer.0.output.dense.weight",
            "!text_encoder.encoder.layer.0.crossattention.self.query.weight",
            "!text_decoder.cls.predictions.bias",
        ),
    ),
    "BLIP (salesforce/BLIP)": ("multiway.hub.release_blip", ("visual_encoder.cls_token",)),
    "VLMo (microsoft/unilm)": ("multiway.hub.release_vlmo", ("transformer.blocks.0.norm2_imag.weight",)),
    "ViLT (dandelin/ViLT)": (
        "multiway.hub.release_vilt",
        ("transformer.pos_embed", "text_embeddings.word_embeddings.weight"),
    ),
    "BEiT-3 (microsoft/unilm)": ("multiway.hub.torchscale_beit3", ("beit3.text_embed.weight",)),
    "CLIP (OpenAI, open_clip)": (
        "multiway.hub.open_clip_clip",
        ("visual.conv1.weight", "ln_final.weight|text.ln_final.weight"),
    ),
    "MoCo v1, v2 (facebookresearch/moco)": ("multiway.hub.release_views", ("encoder_q.conv1.weight",)),
    "MoCo v3 (facebookresearch/moco-v3)": (
        "multiway.hub.release_views",
        ("predictor.0.weight", "base_encoder.conv1.weight|base_encoder.patch_embed.proj.weight"),
    ),
    "SwAV (facebookresearch/swav)": ("multiway.hub.release_views", ("prototypes.weight", "projection_head.0.weight")),
    "DINO with its head (facebookresearch/dino)": ("multiway.hub.release_views", ("teacher.head.last_layer.weight_v",)),
    "MAE with its decoder (facebookresearch/mae)": ("multiway.hub.release_mae", ("decoder_embed.weight", "pos_embed")),
    "ViT (timm; DeiT, DINO's and MAE's encoders)": (
        "multiway.hub.timm_networks",
        ("cls_token", "patch_embed.proj.weight"),
    ),
    "Swin (timm)": ("multiway.hub.timm_networks", ("layers.0.blocks.0.attn.relative_position_bias_table",)),
    "ConvNeXt (timm)": ("multiway.hub.timm_networks", ("stages.0.blocks.0.conv_dw.weight",)),
    "ResNet (torchvision, timm)": ("multiway.hub.timm_networks", ("conv1.weight", "layer4.0.conv1.weight")),
}

WRITERS: dict[str, str] = {
    "transformers": "a folder for `from_pretrained`",
    "open_clip": "a folder for `open_clip.create_model('local-dir:FOLDER')`: CLIP, SigLIP and CoCa",
    "torchscale": "a `.safetensors` file for BEiT-3's own code (microsoft/unilm)",
    "multiway": "one file",
}

_EXTENDED = ("multiway.hub.picture_encoders", "multiway.hub.transformers_beit")  # these know what to refuse themselves


def open_foreign(source: str, allow: Sequence[str] = ()) -> Model:
    """A model that another library wrote.

    Args:
        source: a folder in the layout of `transformers`, `timm` or `open_clip`, its name on the hub, either followed by `#image` or
            `#text` for a part by itself, or a checkpoint file of `RELEASES`.
        allow: regular expressions of tensors of either side that may be left over or start at random.

    Returns:
        The model, with its `report`.

    Raises:
        WeightsError: if a file is missing, nothing here is such a model, or a tensor is unaccounted for.
    """
    if Path(source).is_file():
        return from_file(Path(source), allow)
    name, _, part = source.rpartition("#")
    taken = bool(name) and not Path(source).exists()
    folder = open_folder(name if taken else source)
    with _described(folder):
        model = _from_part(folder, part, allow) if taken else _from_folder(folder, allow)
    _require_words(model, folder)
    kind = model.origin[0]["kind"] if model.origin else model.name
    model.origin = of_others(source, kind, stated_licence(folder))
    return model


def _from_part(folder: Path, part: str, allow: Sequence[str]) -> Model:
    return import_module("multiway.hub.transformers_parts").from_part(str(folder), part, allow)  # type: ignore[no-any-return]


def _from_folder(folder: Path, allow: Sequence[str]) -> Model:
    if (folder / CONFIG_FILE).is_file() and not (folder / "config.json").is_file():
        stated = read_json(folder / CONFIG_FILE).get("model_cfg", {})
        tower = str((stated.get("vision_cfg") or {}).get("timm_model_name"))
        kind = "coca" if "multimodal_cfg" in stated else "siglip" if "_siglip_" in tower else "clip"
        return import_module(f"multiway.hub.open_clip_{kind}").from_open_clip(folder, allow)  # type: ignore[no-any-return]
    stated = read_config(folder)
    if "architecture" in stated and "model_type" not in stated:
        return import_module("multiway.hub.timm_networks").from_folder(folder, stated, allow)  # type: ignore[no-any-return]
    kind = stated.get("model_type", "clip")  # configs older than the field are CLIP's
    if kind not in LAYOUTS:
        raise WeightsError(
            f"{folder} is a model of type {kind!r}; those that can be converted are: {', '.join(LAYOUTS)}"
        )
    return import_module(LAYOUTS[kind]).from_transformers(str(folder), allow)  # type: ignore[no-any-return]


def _require_words(model: Model, source: Path) -> None:
    """Refuse a tokeniser with more ids than there are embeddings of words: it is another model's."""
    words = model.processor.tokenizer
    rows = [len(part.words.weight) for part in model.method.modules() if isinstance(part, TextEmbed)]
    if words is not None and rows and len(words) > min(rows):
        raise WeightsError(
            f"the tokeniser beside {source} has {len(words):,} ids and the model embeddings of {min(rows):,}; it is another model's: put the "
            "right one there, or none, and the model takes token ids"
        )


@contextmanager
def _described(source: Path) -> Iterator[None]:
    """Whatever sizes and settings no model can be built of is an error in the source, which it names."""
    try:
        yield
    except (WeightsError, DataError):
        raise
    except KeyError as error:
        raise WeightsError(
            f"{source} does not say {error.args[0]!r}, which its kind of model needs; is it whole?"
        ) from error
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, IndexError) as error:
        raise WeightsError(
            f"{source} describes a model that cannot be built here: {error!s:.300}; its configuration and its weights have to be of one "
            "model (MULTIWAY_TRACEBACK=1 shows where)"
        ) from error


def from_file(file: Path, allow: Sequence[str] = ()) -> Model:
    """A model from a checkpoint file of `RELEASES`.

    Raises:
        WeightsError: if it cannot be read, is none of them, or a tensor is unaccounted for.
    """
    tensors = read_checkpoint(file)
    module = import_module(RELEASES[release_of(tensors, str(file))][0])
    with _described(file):
        model: Model = module.from_state(tensors, file, allow)
    _require_words(model, file)
    return model


def release_of(tensors: Mapping[str, Tensor], source: str) -> str:
    """Which of `RELEASES` these are of.

    Raises:
        WeightsError: if none, with what there is.
    """
    for name, (_, marks) in RELEASES.items():
        if all(_fits(mark, tensors) for mark in marks):
            return name
    raise WeightsError(
        f"{source} is a checkpoint of nothing known here; its tensors are named like {', '.join(list(tensors)[:4])}. Known are: "
        f"{', '.join(RELEASES)}"
    )


def _fits(mark: str, tensors: Mapping[str, Tensor]) -> bool:
    if mark.startswith("!"):
        return mark[1:] not in tensors
    return any(name in tensors for name in mark.split("|"))


def to_transformers(model: Model, folder: Path, kind: str | None = None) -> None:
    """Write a folder that the model's counterpart in `transformers` reads.

    Args:
        model: to be written.
        folder: is made.
        kind: their class, where there are several (`WRITES` of their module); by default the first that this model has weights for.

    Raises:
        WeightsError: if it has none, or none that could have what this model has.
    """
    # A CLIP whose text tower is a BERT's is theirs under another name.
    chinese = isinstance(model.method, Clip) and model.method.config.text.norm == "post"
    place = LAYOUTS["chinese_clip"] if chinese else COUNTERPARTS.get(model.name)
    if place is None:
        raise WeightsError(
            f"this is a model of type {model.name!r}, of which transformers has no counterpart; those that can be converted are: "
            f"{', '.join(COUNTERPARTS)}"
        )
    towers = [part.config for part in model.method.modules() if isinstance(part, VisionTransformer)]
    if place == LAYOUTS["siglip"]:
        towers = [replace(config, edges=False) for config in towers]  # SigLIP's leaves out what fills no patch
    if place not in _EXTENDED and any(config.extended for config in towers):
        raise WeightsError(
            f"this {model.name} has a ViT with relative positions or none, registers, a norm after the mean, SwiGLU, or pixels that fill no patch, which its "
            "counterpart in transformers has not; only a picture encoder, dino, ibot or beit with these can be written"
        )
    module = import_module(place)
    if kind is None:
        module.to_transformers(model, folder)
        return
    kinds = getattr(module, "WRITES", ())
    if kind not in kinds:
        said = f"expected one of {', '.join(kinds)}" if kinds else "it is written as one class alone: name none"
        raise WeightsError(f"this {model.name} cannot be written as a {kind}; {said}")
    module.to_transformers(model, folder, kind)


def to_open_clip(model: Model, folder: Path) -> None:
    """Write a folder that `open_clip` reads.

    Raises:
        WeightsError: if the model is no CLIP, SigLIP or CoCa of its form.
    """
    if model.name not in ("clip", "coca", "siglip"):
        raise WeightsError(
            f"of the models here open_clip has CLIP, SigLIP and CoCa; given {model.name}: try --layout transformers"
        )
    import_module(f"multiway.hub.open_clip_{model.name}").to_open_clip(model, folder)


def to_torchscale(model: Model, file: Path) -> None:
    """Write a file that BEiT-3's own code reads.

    Raises:
        WeightsError: if the model is no BEiT-3 of the released form.
    """
    import_module("multiway.hub.torchscale_beit3").to_torchscale(model, file)
