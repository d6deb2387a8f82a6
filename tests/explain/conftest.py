"""Small models with random weights: an encoder of each side, tokens with tokens, cross-attention, one stream, and shared blocks."""

import pytest
import torch
from toy import ToySource

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.model import Model
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.beit3 import Beit3, Beit3Config
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.filip import Filip, FilipConfig
from multiway.methods.vilt import Vilt, ViltConfig
from multiway.methods.vlmo import Vlmo, VlmoConfig
from multiway.nn.multiway import MultiwayConfig
from multiway.nn.text import TextConfig
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig

VIT = VisionConfig(size=16, patch=4, width=24, layers=2, heads=2)
BLOCKS = MultiwayConfig(width=32, layers=3, heads=2, fusion_layers=1)
CODES = VisualTokeniserConfig(VIT, codes=16, code_width=8)


def _text(**more: object) -> TextConfig:
    return TextConfig(width=32, layers=1, heads=2, **more)  # type: ignore[arg-type]


CONFIGS = {
    "clip": (Clip, ClipConfig(image=VIT, text=_text(causal=True, pool="eos", eos_id=3), embedding=16)),
    "filip": (Filip, FilipConfig(image=VIT, text=_text(context=0, causal=True, pool="last"), embedding=16)),
    "albef": (
        Albef,
        AlbefConfig(VIT, _text(context=0, causal=False, pool="class"), fusion_layers=3, embedding=16, queue=0),
    ),
    "vilt": (Vilt, ViltConfig(size=16, patch=4, width=32, layers=3, heads=2)),
    "vlmo": (Vlmo, VlmoConfig(BLOCKS, size=16, patch=4, stem="patch")),
    "beit3": (Beit3, Beit3Config(BLOCKS, size=16, patch=4, stem="patch", tokeniser=CODES)),
}


@pytest.fixture(scope="session")
def models() -> dict[str, Model]:
    source = ToySource(32)
    words = Tokenizer.train([c for i in range(32) for c in source.row(i).captions], TokenizerSpec(290, 24))
    found = {}
    for number, (name, (method, config)) in enumerate(CONFIGS.items()):
        torch.manual_seed(number)
        info = DataInfo(vocabulary=len(words), context=24, special=words.special)
        made = method(config.resolve(info))
        with torch.no_grad():  # at the usual start attention is even, and no map says anything
            for parameter in made.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
        found[name] = Model(made, Processor(ViewSpec(size=16, crop="squash"), words))
    return found
