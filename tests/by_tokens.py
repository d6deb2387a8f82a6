"""A model without a shared space, over toy pictures: what compares by tokens is tested on it."""

import torch
from toy import ToySource

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.model import Model
from multiway.methods.filip import Filip, FilipConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig


def by_tokens() -> Model:
    """FILIP with random weights: no embedding, compared token by token."""
    words = Tokenizer.train(ToySource(8).row(0).captions, TokenizerSpec(vocabulary=280, context=16))
    torch.manual_seed(0)
    config = FilipConfig(
        image=VisionConfig(size=16, patch=8, width=16, layers=1, heads=2),
        text=TextConfig(context=0, width=16, layers=1, heads=2, pool="last"),
        embedding=8,
    )
    method = Filip(config.resolve(DataInfo(vocabulary=len(words), context=16)))
    return Model(method, Processor(ViewSpec(size=16), words), batch=3)
