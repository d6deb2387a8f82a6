"""Small methods of masked image modelling, and batches for them."""

from dataclasses import replace

import torch

from multiway.batch import Batch, DataInfo
from multiway.methods import method_class
from multiway.methods.masked_pictures import MaskedPictures
from multiway.methods.method import Losses, Step
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

SMALL = VisionConfig(size=16, patch=4, width=16, layers=2, heads=2)
TOKENISER = VisualTokeniserConfig(replace(SMALL, layers=1), codes=7, code_width=6)
INFO = DataInfo(samples=64, classes=5)
WORLD = World()


def built(name: str, **changed: object) -> MaskedPictures:
    """A method at `tiny` with a smaller encoder."""
    torch.manual_seed(0)
    kind = method_class(name)
    config = replace(kind.config_class.preset("tiny"), backbone=SMALL)
    if name == "beit":
        config = replace(config, tokeniser=TOKENISER, aggregate_from=1, aggregate_layers=1)
    found = kind(replace(config, **changed).resolve(INFO))
    assert isinstance(found, MaskedPictures)
    return found.train()


def batch(method: MaskedPictures, rows: int = 8, seed: int = 0, share: float = 0.5) -> Batch:
    """Random pictures, a share of whose squares is hidden."""
    make = torch.Generator().manual_seed(seed)
    squares = (16 // method.hides) ** 2
    mask = torch.rand(rows, squares, generator=make).argsort(1) < share * squares
    return Batch(
        views=(torch.randn(rows, 3, 16, 16, generator=make),),
        patch_mask=mask,
        labels=torch.arange(rows) % 5,
        sample_index=torch.arange(rows),
    )


def step(method: MaskedPictures, rows: Batch) -> Losses:
    return method.training_step(rows, WORLD, Step())
