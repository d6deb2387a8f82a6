"""Small models of every kind that can be exported, with random weights."""

from dataclasses import fields, replace
from typing import Any

import torch
from hub.stand_ins import random_everywhere

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.model import Model
from multiway.methods import method_class
from multiway.methods.beit3 import Beit3Config
from multiway.methods.clip import ClipConfig
from multiway.nn.conv_stage import ConvStageConfig
from multiway.nn.multiway_block import MultiwayConfig
from multiway.nn.resnet import ModifiedResNetConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

SIDE = 16
CAPTIONS = ["red on the left", "the top is green", "something blue", "12 purple halves of a picture"]
TOKENIZER = Tokenizer.train(CAPTIONS, TokenizerSpec(280, 12))
_SMALL = {"size": SIDE, "patch": 8, "width": 32, "layers": 1, "heads": 2}

# name of the case -> method, and what its config has instead of the method's own.
CASES: dict[str, tuple[str, Any]] = {
    name: (name, None) for name in ("clip", "siglip", "filip", "albef", "blip", "coca", "vilt", "vlmo", "meter", "simvlm", "dino")
} | {
    "clip-resnet": ("clip", ClipConfig(image=ModifiedResNetConfig(size=SIDE * 2, depths=(1, 1, 1, 1), base=4, heads=2, output=32), embedding=32)),
    "beit3": ("beit3", replace(Beit3Config(), objective="itc")),
    "beit3-caption": ("beit3", replace(Beit3Config(), objective="caption")),
}  # fmt: skip


def made(case: str) -> Model:
    """A model of a case."""
    name, config = CASES[case]
    cls = method_class(name)
    given = cls.config_class() if config is None else config
    given = _shrunk(given)
    info = DataInfo(len(TOKENIZER), TOKENIZER.context, 64, 0, TOKENIZER.special)
    torch.manual_seed(0)
    method = cls(given.resolve(info))
    random_everywhere(method)
    size = SIDE * 2 if case == "clip-resnet" else SIDE
    return Model(method, Processor(ViewSpec(size=size, crop="pad"), TOKENIZER))


def _shrunk(config: Any) -> Any:
    """The same config, smaller wherever it says a size."""
    changes: dict[str, Any] = {}
    for each in fields(config):
        part = getattr(config, each.name)
        if isinstance(part, VisionConfig | TextConfig | ConvStageConfig | MultiwayConfig):
            wanted = {key: value for key, value in _SMALL.items() if hasattr(part, key)}
            if isinstance(part, MultiwayConfig):
                wanted |= {"layers": 2, "fusion_layers": 1}
            if getattr(part, "cross_width", None):
                wanted["cross_width"] = 32
            changes[each.name] = replace(part, **wanted)
        elif each.name in _SMALL and not hasattr(part, "__len__"):
            changes[each.name] = _SMALL[each.name]
    return replace(config, **changes)
