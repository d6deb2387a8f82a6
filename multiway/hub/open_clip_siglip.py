"""SigLIPs of the `open_clip` library, in and out: `ViT-B-16-SigLIP`, `ViT-SO400M-16-SigLIP2-256` and their like.

Their picture tower is timm's, which they build by its name: name, heads and activation follow from it, and only towers that have a name
can be written. Some have the tanh's GELU, others the exact one, under which the same released weights are run there; a SigLIP of
big_vision, transformers and here has the tanh's, so that most that are trained here have to be trained with
`--method.image.activation gelu` to be one of theirs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers
from tokenizers import Tokenizer as Backend
from torch import Tensor

from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer
from multiway.hub import timm_names
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.open_clip_folder import plain, read_folder, resblocks, view_of, write_folder
from multiway.hub.renaming import Table, fill, state_of
from multiway.hub.rules import both, laid_out, leading, patches, same
from multiway.hub.timm_networks import count
from multiway.hub.tokenizer_files import pad_of, read_tokenizer
from multiway.hub.transformers_folder import mlp_ratio
from multiway.methods.siglip import Siglip, SiglipConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

__all__ = ["HEADS", "TABLE", "TOWERS", "from_open_clip", "siglip_config", "to_open_clip"]

HEADS = {768: 12, 1024: 16, 1152: 16, 1536: 16}
"""Of a picture tower, by its width."""
TOWERS: dict[str, tuple[int, int, int, int, int, str]] = {
    f"vit_{kind}_patch{patch}_siglip_{size}": (size, patch, width, layers, hidden, activation)
    for kind, width, layers, hidden, made in (
        ("base", 768, 12, 3072, ((32, 256, "gelu_tanh"), *((16, size, "gelu") for size in (224, 256, 384, 512)))),
        ("large", 1024, 24, 4096, ((16, 256, "gelu"), (16, 384, "gelu"), (16, 512, "gelu_tanh"))),
        ("so400m", 1152, 27, 4304,
         ((14, 224, "gelu"), (14, 378, "gelu"), (14, 384, "gelu"), *((16, size, "gelu_tanh") for size in (256, 384, 512)))),
        ("giantopt", 1536, 40, 6144, ((16, 256, "gelu_tanh"), (16, 384, "gelu_tanh"))),
    )
    for patch, size, activation in made
}  # fmt: skip
"""timm's name (1.0.31) -> pixels, patch, width, blocks, width of the feed-forward part, activation."""

_REMEDY = "SigLIP's, with timm's vit_*_siglip_* pooled by attention and a text tower read at its last position"
_TEXT = {
    "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "embed_cls": False, "proj_type": "linear", "hf_model_name": None,
    "ls_init_value": None, "block_type": None, "use_pad_mask": False,
}  # fmt: skip
_DRAWN = {
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "resize_mode": "squash",
    "interpolation": "bicubic",
}  # where a folder leaves it open

TABLE = Table(
    "SigLIP of open_clip",
    [
        *same(
            ("text.embed.words.weight", "text.token_embedding.weight"),
            ("text.embed.positions", "text.positional_embedding"),
        ),
        *(
            rule
            for ours, theirs in (("log_scale", "logit_scale"), ("bias", "logit_bias"))
            for rule in laid_out(ours, theirs, lambda each: each.reshape(()), lambda each: each)
        ),
        *both(("text.transformer.norm", "text.ln_final"), ("text_projection", "text.text_projection")),
        *resblocks("text.transformer", "text.transformer"),
        *patches("image.patches.project", "visual.trunk.patch_embed.proj"),
        *leading(("image.positions", "visual.trunk.pos_embed"), ("image_pool.queries", "visual.trunk.attn_pool.latent"), dims=1),
        *timm_names.blocks("image.transformer.blocks.*", "visual.trunk.blocks.*"),
        *both(
            ("image.transformer.norm", "visual.trunk.norm"),
            ("image_pool.attention.query", "visual.trunk.attn_pool.q"),
            ("image_pool.attention.key_value", "visual.trunk.attn_pool.kv"),
            ("image_pool.attention.out", "visual.trunk.attn_pool.proj"),
            ("image_pool.mlp_norm", "visual.trunk.attn_pool.norm"),
            ("image_pool.mlp.up", "visual.trunk.attn_pool.mlp.fc1"),
            ("image_pool.mlp.down", "visual.trunk.attn_pool.mlp.fc2"),
        ),
    ],
)  # fmt: skip


def siglip_config(stated: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> SiglipConfig:
    """Our config from their `model_cfg`, and the picture tower's sizes from the shapes.

    Raises:
        WeightsError: if the model is built in a way that no SigLIP here is.
    """
    vision, text = stated.get("vision_cfg") or {}, stated.get("text_cfg") or {}
    name = vision.get("timm_model_name")
    if name not in TOWERS:
        raise WeightsError(
            f"vision_cfg.timm_model_name is {name!r}; of timm's towers those of {', '.join(TOWERS)} can be converted"
        )
    plain({"timm_proj": None, "timm_pool": None} | vision, {"timm_proj": "none", "timm_pool": "map"}, _REMEDY)
    plain({"no_causal_mask": False, "proj_bias": False, "pool_type": "argmax"} | text, _TEXT, _REMEDY)
    if stated.get("init_logit_bias") is None:
        raise WeightsError(f"init_logit_bias is not given; {_REMEDY} have one")
    width, _, patch, _ = theirs["visual.trunk.patch_embed.proj.weight"].shape
    # The size is not read off the positions: towers of another name may have as many.
    size, its_patch, its_width, _, _, activation = TOWERS[name]
    side = math.isqrt(theirs["visual.trunk.pos_embed"].shape[1])
    if (its_patch, its_width, size // its_patch) != (patch, width, side) or vision.get("image_size", size) != size:
        raise WeightsError(
            f"{name} has pictures of {size} pixels, patches of {its_patch} and a width of {its_width}; this one has "
            f"{vision.get('image_size', size)} ({side * patch} by its positions), {patch} and {width}"
        )
    image = VisionConfig(
        size=size,
        patch=patch,
        width=width,
        layers=count(theirs, "visual.trunk.blocks."),
        heads=HEADS[width],
        mlp_ratio=mlp_ratio(width, len(theirs["visual.trunk.blocks.0.mlp.fc1.weight"])),
        activation=activation,  # type: ignore[arg-type]
        pool="mean",
        epsilon=1e-6,
        edges=size % patch > 0,
    )
    acts, wide = text.get("act_kwargs") or {}, text.get("width", 512)
    if acts not in ({}, {"approximate": "none"}, {"approximate": "tanh"}):
        raise WeightsError(f"text_cfg.act_kwargs is {acts}; expected GELU, exact or tanh's")
    words = TextConfig(
        vocabulary=text.get("vocab_size", 49408),
        context=text.get("context_length", 77),
        width=wide,
        layers=text.get("layers", 12),
        heads=text.get("heads", 8),
        mlp_ratio=mlp_ratio(wide, int(wide * text.get("mlp_ratio", 4.0))),
        activation="quick_gelu"
        if stated.get("quick_gelu")
        else "gelu_tanh"
        if acts.get("approximate") == "tanh"
        else "gelu",
        causal=False,
        pool="last",
        epsilon=(text.get("norm_kwargs") or {}).get("eps", 1e-5),
    )
    return SiglipConfig(image=image, text=words, pad_id=1)


def from_open_clip(folder: Path, allow: Sequence[str] = ()) -> Model:
    """A SigLIP from a folder as `open_clip` keeps it on the hub.

    Texts are cleaned as the folder asks (`tokenizer_kwargs.clean`), but for mended encodings (ftfy) and HTML.

    Raises:
        WeightsError: if a file is missing, the model is no SigLIP that can be converted, or a tensor is unaccounted for.
    """
    stated, tensors = read_folder(folder)
    model = stated.get("model_cfg", {})
    config = siglip_config(model, tensors)
    words = read_tokenizer(folder, config.text.context)
    config = replace(config, pad_id=pad_of(folder, words, config.pad_id))
    clean = ((model.get("text_cfg") or {}).get("tokenizer_kwargs") or {}).get("clean", "whitespace")
    method = Siglip(config)
    report = fill(method, TABLE, tensors, str(folder), allow)
    view = view_of({"preprocess_cfg": _DRAWN | stated.get("preprocess_cfg", {})}, config.image.size)
    return Model(method, Processor(view, words and _cleaned(words, clean)), report=report)


def _cleaned(words: Tokenizer, how: str) -> Tokenizer:
    """A tokeniser that cleans texts before anything else, as theirs does.

    Raises:
        WeightsError: for another way than SigLIP's and that of lone spaces.
    """
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    marks = re.escape("!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~")
    ways = {
        "whitespace": spaces,
        "lower": [*spaces, normalizers.Lowercase()],
        "canonicalize": [normalizers.Replace("_", " "), normalizers.Replace(Regex(f"[{marks}]"), ""), normalizers.Lowercase(), *spaces],
    }  # fmt: skip
    if how not in ways:
        raise WeightsError(f"tokenizer_kwargs.clean is {how!r}; expected one of {', '.join(ways)}")
    backend = Backend.from_str(words.to_json())
    own = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = normalizers.Sequence([*ways[how], *own])
    return Tokenizer(backend, words.context)


def to_open_clip(model: Model, folder: Path) -> None:
    """Write a folder that `open_clip` reads (`create_model("local-dir:...")`).

    Raises:
        WeightsError: if the model is no SigLIP, or timm has no tower like its own.
    """
    method = model.method
    if not isinstance(method, Siglip):
        raise WeightsError(f"only a SigLIP can be written as open_clip's; given {type(method).__name__}")
    config, image, text = method.config, method.config.image, method.config.text
    sizes = (image.size, image.patch, image.width, image.layers, int(image.width * image.mlp_ratio), image.activation)
    name = next((name for name, each in TOWERS.items() if each == sizes), None)
    if name is None or image.heads != HEADS[image.width] or image.stem != "patch" or image.epsilon != 1e-6:
        raise WeightsError(
            "open_clip builds SigLIP's picture tower by timm's name, and none is of (pixels, patch, width, blocks, hidden, activation) "
            f"{sizes} with {image.heads} heads, stem='patch' and epsilon=1e-6: {', '.join(f'{each} {TOWERS[each]}' for each in TOWERS)}; "
            "try --layout transformers"
        )
    if text.activation not in ("gelu", "gelu_tanh"):
        raise WeightsError(f"a text tower of open_clip's SigLIP has GELU, exact or tanh's; given {text.activation!r}")
    tanh = {"act_kwargs": {"approximate": "tanh"}} if text.activation == "gelu_tanh" else {}
    stated = {
        "embed_dim": image.width, "init_logit_bias": config.bias, "custom_text": True,
        "vision_cfg": {"image_size": image.size, "timm_model_name": name, "timm_model_pretrained": False, "timm_pool": "map",
                       "timm_proj": "none"},
        "text_cfg": {"context_length": text.context, "vocab_size": text.vocabulary, "width": text.width, "heads": text.heads,
                     "layers": text.layers, "mlp_ratio": text.mlp_ratio, "no_causal_mask": True, "proj_bias": True,
                     "pool_type": "last", "pad_id": config.pad_id, "norm_kwargs": {"eps": text.epsilon}, **tanh},
    }  # fmt: skip
    write_folder(folder, TABLE.write(state_of(method)), stated, model.processor)
