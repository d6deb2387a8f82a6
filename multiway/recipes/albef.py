"""ALBEF's recipes: the bundled world of scenes on a laptop, and the paper's size.

multiway train albef --out runs/a                                  scenes of one to three things; two CPU cores
torchrun --nproc-per-node 8 -m multiway train albef --preset base --data 'shards/{0000..0999}.tar' --out runs/b
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
from multiway.methods.albef import AlbefConfig
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD

__all__ = ["WORLD", "AlbefRecipe", "albef"]


@dataclass(frozen=True)
class AlbefRecipe(Recipe):
    """Align before fuse: contrast, matching and masked words, with a momentum twin."""

    name: ClassVar[str] = "albef"
    method_name: ClassVar[str] = "albef"

    method: AlbefConfig = AlbefConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masking.ratio <= 0:
            raise ConfigError(
                f"masking.ratio is {self.masking.ratio}; ALBEF guesses masked words and needs one above 0"
            )


def albef(preset: str = "tiny") -> AlbefRecipe:
    """ALBEF at a preset.

    `tiny`: scenes of one to three plain things; docs/methods/albef.md has its scores, machine and date.

    `base`: the paper's size and hyper-parameters (section 3.6 and the released configuration): batch 512, 30 epochs of 5.1 M
    pairs, peak 1e-4 falling to 1e-5, weight decay 0.02, 256 pixels. Nobody here has run it.
    """
    method = AlbefConfig.preset(preset)
    if preset == "tiny":
        # The temperature keeps the paper's own rate of 1e-4. At ten times that it falls to its bound within some hundred
        # steps, and the contrastive gradient, which grows as it falls, drowns the others.
        optimiser = OptimiserSpec(weight_decay=0.05, warmup=0.05, rules=(("temperature", 0.1),))
        return AlbefRecipe(
            settings=Settings(steps=1500, batch=64, lr=1e-3, optimiser=optimiser),
            preset=preset,
            data=WORLD,
            view=ViewSpec(size=method.image.size, crop="squash"),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            masking=Masking(ratio=0.3, least=1),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=0.02, betas=(0.9, 0.999), epsilon=1e-8, warmup=2000, floor=0.1, clip=0.0)
    return AlbefRecipe(
        settings=Settings(steps=299_000, batch=512, lr=1e-4, checkpoint_every=1000, log_every=50, optimiser=optimiser),
        preset=preset,
        data="",
        view=ViewSpec(size=256, crop="squash", augment="crop"),
        tokenizer=TokenizerSpec(vocabulary=30522, context=30),
        masking=Masking(ratio=0.15, whole_words=False),
        method=method,
    )
