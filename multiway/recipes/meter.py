"""METER's recipes: the bundled world of scenes on a laptop, and the paper's size.

multiway train meter --out runs/a                                  scenes of one to three things; two CPU cores
multiway train meter --method.fusion merged --out runs/merged      one stream instead of two
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.config import ConfigError
from multiway.data.masking import Masking
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.meter import MeterConfig
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD

__all__ = ["MeterRecipe", "meter"]


@dataclass(frozen=True)
class MeterRecipe(Recipe):
    """Two encoders, then two streams that read each other: matching and masked words."""

    name: ClassVar[str] = "meter"
    method_name: ClassVar[str] = "meter"

    method: MeterConfig = MeterConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masking.ratio <= 0:
            raise ConfigError(
                f"masking.ratio is {self.masking.ratio}; METER guesses masked words and needs one above 0"
            )


def meter(preset: str = "tiny") -> MeterRecipe:
    """METER at a preset.

    `tiny`: scenes of one to three plain things; docs/methods/meter.md has its scores, machine and date.

    `base`: the paper's size and hyper-parameters (section 4.1): batch 4096, 100,000 steps, AdamW at 1e-5 for the encoders and
    5e-5 above them, weight decay 0.01, warm-up over a tenth, linear decay, 288 pixels, texts of 50 tokens. Nobody here has run
    it.
    """
    method = MeterConfig.preset(preset)
    if preset == "tiny":
        return MeterRecipe(
            settings=Settings(steps=1500, batch=64, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.05)),
            preset=preset,
            data=WORLD,
            # White is 0: what all pictures share would else be most of what every patch says (docs/methods/vilt.md).
            view=ViewSpec(size=method.image.size, crop="squash", mean=(1.0, 1.0, 1.0), std=(0.5, 0.5, 0.5)),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            masking=Masking(ratio=0.3, least=1),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=0.01, betas=(0.9, 0.98), epsilon=1e-8, warmup=0.1, decay="linear", clip=0.0)
    return MeterRecipe(
        settings=Settings(steps=100_000, batch=4096, lr=1e-5, checkpoint_every=1000, log_every=50, optimiser=optimiser),
        preset=preset,
        data="",
        view=ViewSpec(size=288, crop="squash"),
        tokenizer=TokenizerSpec(vocabulary=50265, context=50),
        masking=Masking(ratio=0.15),
        method=method,
    )
