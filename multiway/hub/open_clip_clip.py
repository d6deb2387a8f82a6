"""CLIPs of the `open_clip` library, in and out, with a ViT or CLIP's ResNet; and OpenAI's own state dicts, whose names they are.

A folder says its sizes (`open_clip_config.json`); of a bare state dict they are read off the shapes, but for the width of heads, which
is 64 in all that was released, and the activation: OpenAI's models have the quick GELU, most of `open_clip`'s do not.

Where `open_clip` reads a text is at the greatest id, as OpenAI did, or at a given end token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.open_clip_folder import picture, plain, read_folder, resblocks, view_of, write_folder
from multiway.hub.renaming import Table, fill, state_of
from multiway.hub.rules import Rule, batch_norms, both, joined, laid_out, patches, placed, same, turned
from multiway.hub.tokenizer_files import read_tokenizer
from multiway.methods.clip import Clip, ClipConfig
from multiway.nn.resnet import ModifiedResNetConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

__all__ = ["clip_config", "config_of_shapes", "from_open_clip", "from_state", "table", "to_open_clip"]

_REMEDY = (
    "CLIPs with a plain ViT or CLIP's ResNet and a causal text tower, as OpenAI's and LAION's ViT-B, -L, -H and -g"
)
_VISION = {
    "attentional_pool": False, "no_ln_pre": False, "pos_embed_type": "learnable", "final_ln_after_pool": False, "pool_type": "tok",
    "ls_init_value": None, "timm_model_name": None, "act_kwargs": None, "norm_kwargs": None, "block_type": None,
}  # fmt: skip
_TEXT = {
    "embed_cls": False, "no_causal_mask": False, "final_ln_after_pool": False, "proj_bias": False, "proj_type": "linear",
    "hf_model_name": None, "act_kwargs": None, "norm_kwargs": None, "ls_init_value": None, "block_type": None,
}  # fmt: skip


def table(config: ClipConfig) -> Table:
    """Which tensors are which."""
    rules = [
        *laid_out("log_scale", "logit_scale", lambda each: each.reshape(()), lambda each: each),
        *same(
            ("text.embed.words.weight", "token_embedding.weight"),
            ("text.embed.positions", "positional_embedding"),
        ),
        *both(("text.transformer.norm", "ln_final")),
        *turned(("text_projection.weight", "text_projection")),
        *resblocks("text.transformer", "transformer"),
        *(_resnet(config.image) if isinstance(config.image, ModifiedResNetConfig) else vit("image.", "visual.")),
        *turned(("image_projection.weight", "visual.proj")),
    ]
    sizes = (r"^(input_resolution|context_length|vocab_size)$", "sizes that OpenAI's release keeps among its weights")
    return Table(
        "CLIP of open_clip", rules, empty=[sizes, (r"(^|\.)attn_mask$", "a mask that follows from the context")]
    )


def vit(ours: str, theirs: str) -> list[Rule]:
    """The picture's ViT, without its projection."""
    return [
        *same((f"{ours}class_token", f"{theirs}class_embedding")),
        *patches(f"{ours}patches.project", f"{theirs}conv1"),
        *placed(ours, f"{theirs}positional_embedding", batched=False),
        *both((f"{ours}pre_norm", f"{theirs}ln_pre"), (f"{ours}transformer.norm", f"{theirs}ln_post")),
        *resblocks(f"{ours}transformer", f"{theirs}transformer"),
    ]


def _resnet(config: ModifiedResNetConfig) -> list[Rule]:
    stem = [(f"image.stem.{3 * number}", f"visual.conv{number + 1}") for number in range(3)]
    norms = [(f"image.stem.{3 * number + 1}", f"visual.bn{number + 1}") for number in range(3)]
    for stage in range(len(config.depths)):
        own, their = f"image.stages.{stage}.*", f"visual.layer{stage + 1}.*"
        stem += [(f"{own}.conv{each}", f"{their}.conv{each}") for each in (1, 2, 3)]
        stem.append((f"{own}.shortcut.1", f"{their}.downsample.0"))
        norms += [(f"{own}.norm{each}", f"{their}.bn{each}") for each in (1, 2, 3)]
        norms.append((f"{own}.shortcut.2", f"{their}.downsample.1"))
    pool = "image.pool.attention"
    return [
        *both(*stem, (f"{pool}.query", "visual.attnpool.q_proj"), (f"{pool}.out", "visual.attnpool.c_proj")),
        *batch_norms(*norms),
        *joined(f"{pool}.key_value", "visual.attnpool.{}_proj", "kv"),
        *placed("image.pool.", "visual.attnpool.positional_embedding", batched=False, first="mean_position"),
    ]


def clip_config(theirs: Mapping[str, Any]) -> ClipConfig:
    """Our config from their `model_cfg`.

    Raises:
        WeightsError: if the model is built in a way that no CLIP here is.
    """
    vision, text = theirs.get("vision_cfg") or {}, theirs.get("text_cfg") or {}
    plain(vision, _VISION, _REMEDY)
    plain(text, _TEXT, _REMEDY)
    if theirs.get("init_logit_bias") is not None or text.get("pool_type", "argmax") not in ("argmax", "eos"):
        raise WeightsError(
            f"init_logit_bias is {theirs.get('init_logit_bias')} and text_cfg.pool_type {text.get('pool_type', 'argmax')!r}; those "
            f"without a bias that read at the greatest id or the end token can be converted: {_REMEDY}"
        )
    activation = "quick_gelu" if theirs.get("quick_gelu", False) else "gelu"
    image: VisionConfig | ModifiedResNetConfig
    if isinstance(vision.get("layers", 12), list | tuple):
        base = vision.get("width", 64)
        image = ModifiedResNetConfig(
            size=vision.get("image_size", 224),
            depths=tuple(vision["layers"]),
            base=base,
            heads=base * 32 // vision.get("head_width", 64),
            output=theirs["embed_dim"],
        )
    else:
        image = VisionConfig(**picture(vision, activation))
    words = TextConfig(
        vocabulary=text.get("vocab_size", 49408),
        context=text.get("context_length", 77),
        width=text.get("width", 512),
        layers=text.get("layers", 12),
        heads=text.get("heads", 8),
        mlp_ratio=float(text.get("mlp_ratio", 4.0)),
        activation=activation,  # type: ignore[arg-type]
        eos_id=text.get("eos_id", 2) if text.get("pool_type") == "eos" else None,
    )
    return ClipConfig(image=image, text=words, embedding=theirs["embed_dim"])


def config_of_shapes(theirs: Mapping[str, Tensor], *, quick: bool, head_width: int = 64) -> dict[str, Any]:
    """Their `model_cfg` from a state dict, as OpenAI's `build_model` reads it off the shapes.

    Args:
        theirs: with texts' names at the top (`token_embedding.weight`).
        quick: whether the activation is the quick GELU.
        head_width: of attention.

    Raises:
        WeightsError: if a tensor that shows a size is not there.
    """
    try:
        context, width = theirs["positional_embedding"].shape
        vocabulary, embedding = len(theirs["token_embedding.weight"]), theirs["text_projection"].shape[1]
        if "visual.proj" in theirs:
            wide, _, _, patch = theirs["visual.conv1.weight"].shape
            grid = math.isqrt(len(theirs["visual.positional_embedding"]) - 1)
            vision: dict[str, Any] = {
                "image_size": grid * patch,
                "layers": _count(theirs, "visual.transformer.resblocks."),
                "width": wide,
                "patch_size": patch,
            }
        else:
            grid = math.isqrt(len(theirs["visual.attnpool.positional_embedding"]) - 1)
            depths = [_count(theirs, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
            vision = {"image_size": grid * 32, "layers": depths, "width": len(theirs["visual.layer1.0.conv1.weight"])}
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a CLIP?") from error
    return {
        "embed_dim": embedding, "quick_gelu": quick, "vision_cfg": {**vision, "head_width": head_width},
        "text_cfg": {"context_length": context, "vocab_size": vocabulary, "width": width, "heads": width // head_width,
                     "layers": _count(theirs, "transformer.resblocks.")},
    }  # fmt: skip


def _count(theirs: Mapping[str, Tensor], beginning: str) -> int:
    return len({name.removeprefix(beginning).split(".")[0] for name in theirs if name.startswith(beginning)})


def names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the text's names at the top: newer models of theirs have them in a part of their own."""
    return {name.removeprefix("text."): each for name, each in theirs.items()}


def from_open_clip(folder: Path, allow: Sequence[str] = ()) -> Model:
    """A CLIP from a folder as `open_clip` keeps it on the hub.

    Raises:
        WeightsError: if a file is missing, the model is no CLIP that can be converted, or a tensor is unaccounted for.
    """
    stated, tensors = read_folder(folder)
    config = clip_config(stated.get("model_cfg", {}))
    method = Clip(config)
    report = fill(method, table(config), names(tensors), str(folder), allow)
    assert isinstance(config.image, VisionConfig | ModifiedResNetConfig)
    view = view_of(stated, config.image.size)
    return Model(method, Processor(view, read_tokenizer(folder, config.text.context)), report=report)


def from_state(theirs: Mapping[str, Tensor], source: Path, allow: Sequence[str] = ()) -> Model:
    """A CLIP from a bare state dict: OpenAI's, or one that was trained by `open_clip`.

    OpenAI's keeps `input_resolution` among its weights, which tells that the activation is the quick GELU.

    Raises:
        WeightsError: as of `from_open_clip`.
    """
    tensors = {name: each.float() if each.is_floating_point() else each for name, each in names(theirs).items()}
    stated = config_of_shapes(tensors, quick="input_resolution" in theirs)
    config = clip_config(stated)
    method = Clip(config)
    report = fill(method, table(config), tensors, str(source), allow)
    view = view_of({}, stated["vision_cfg"]["image_size"])
    return Model(method, Processor(view, read_tokenizer(source.parent, config.text.context)), report=report)


def to_open_clip(model: Model, folder: Path) -> None:
    """Write a folder that `open_clip` reads (`create_model("local-dir:...")`).

    Raises:
        WeightsError: if the model is not of the form that `open_clip` has.
    """
    method = model.method
    if not isinstance(method, Clip) or not isinstance(method.config.image, VisionConfig | ModifiedResNetConfig):
        raise WeightsError(
            f"a CLIP with a ViT or CLIP's ResNet can be written as open_clip's; given {type(method).__name__}"
        )
    config, image, text = method.config, method.config.image, method.config.text
    built = (text.causal, text.pool, text.norm, text.types, text.embedding_norm, text.epsilon)
    form: tuple[Any, ...] = ("patch", "class", True, False, text.activation, 1e-5)
    if isinstance(image, VisionConfig):
        form = (image.stem, image.pool, image.pre_norm, image.patch_bias, image.activation, image.epsilon)
    if (
        built != (True, "eos", "pre", 0, False, 1e-5)
        or form != ("patch", "class", True, False, text.activation, 1e-5)
        or text.activation not in ("gelu", "quick_gelu")
        or (isinstance(image, VisionConfig) and image.width % image.heads)
    ):
        raise WeightsError(
            "open_clip's CLIP has an image tower as CLIP's (stem='patch', pool='class', pre_norm=True, patch_bias=False), a causal text "
            "tower read at its end, epsilon=1e-5 and GELU or quick GELU in both; this model differs"
        )
    write_folder(folder, table(config).write(state_of(method)), _their_config(config), model.processor)


def _their_config(config: ClipConfig) -> dict[str, Any]:
    image, text = config.image, config.text
    if isinstance(image, ModifiedResNetConfig):
        vision: dict[str, Any] = {"image_size": image.size, "layers": list(image.depths), "width": image.base, "patch_size": None,
                                  "head_width": image.base * 32 // image.heads}  # fmt: skip
    else:
        assert isinstance(image, VisionConfig)
        vision = {"image_size": image.size, "layers": image.layers, "width": image.width, "patch_size": image.patch,
                  "head_width": image.width // image.heads, "mlp_ratio": image.mlp_ratio}  # fmt: skip
    end = {} if text.eos_id is None else {"pool_type": "eos", "eos_id": text.eos_id}
    return {
        "embed_dim": config.embedding,
        "quick_gelu": text.activation == "quick_gelu",
        "vision_cfg": vision,
        "text_cfg": {"context_length": text.context, "vocab_size": text.vocabulary, "width": text.width, "heads": text.heads,
                     "layers": text.layers, "mlp_ratio": text.mlp_ratio, **end},
    }  # fmt: skip
