"""CoCa's recipes: the bundled world of scenes on a laptop, and the paper's sizes.

multiway train coca --out runs/a                                   scenes of one to three things; two CPU cores
multiway train coca --method.pooler parallel --out runs/b          the contrastive query reads the picture itself
torchrun --nproc-per-node 8 -m multiway train coca --preset base --data 'shards/{0000..0999}.tar' --out runs/c
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.coca import CocaConfig
from multiway.recipes.pairs import PairsRecipe
from multiway.recipes.world import WORLD

__all__ = ["CocaRecipe", "coca"]


@dataclass(frozen=True)
class CocaRecipe(PairsRecipe):
    """Contrast and captions in one pass over picture and text."""

    name: ClassVar[str] = "coca"
    method_name: ClassVar[str] = "coca"

    method: CocaConfig = CocaConfig()


def coca(preset: str = "tiny") -> CocaRecipe:
    """CoCa at a preset.

    `tiny`: scenes of one to three plain things; docs/methods/coca.md has its scores, machine and date.

    `base`, `large`, `giant`: the paper's sizes and hyper-parameters (section 4.1): batch 65,536, 500,000 steps, peak 8e-4 after a
    warm-up of 2 %, linear decay, weight decay 0.01, 288 pixels. The paper's optimiser is Adafactor; this is AdamW with its two
    betas. Nobody here has run them.
    """
    method = CocaConfig.preset(preset)
    if preset == "tiny":
        optimiser = OptimiserSpec(weight_decay=0.05, warmup=0.05)
        return CocaRecipe(
            settings=Settings(steps=1000, batch=64, lr=1e-3, optimiser=optimiser),
            preset=preset,
            data=WORLD,
            view=ViewSpec(size=method.image.size, crop="squash"),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            method=method,
        )
    steps = 500_000
    optimiser = OptimiserSpec(weight_decay=0.01, betas=(0.9, 0.999), warmup=0.02, floor=0.0, decay="linear")
    return CocaRecipe(
        settings=Settings(steps=steps, batch=65_536, lr=8e-4, checkpoint_every=1000, log_every=50, optimiser=optimiser),
        preset=preset,
        data="",
        view=ViewSpec(size=method.image.size, crop="squash", augment="crop", margin=1.1),
        tokenizer=TokenizerSpec(vocabulary=method.text.vocabulary, context=method.text.context),
        method=method,
    )
