"""BLIP's recipes: the bundled world of scenes on a laptop, and the paper's sizes.

multiway train blip --out runs/a                                   scenes of one to three things; two CPU cores
torchrun --nproc-per-node 8 -m multiway train blip --preset base --data 'shards/{0000..0999}.tar' --out runs/b
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.blip import BlipConfig
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD

__all__ = ["BlipRecipe", "blip"]


@dataclass(frozen=True)
class BlipRecipe(Recipe):
    """Contrast, matching and captions by one text transformer in three modes, with a momentum twin."""

    name: ClassVar[str] = "blip"
    method_name: ClassVar[str] = "blip"

    method: BlipConfig = BlipConfig()


def blip(preset: str = "tiny") -> BlipRecipe:
    """BLIP at a preset.

    `tiny`: scenes of one to three plain things; docs/methods/blip.md has its scores, machine and date.

    `base`, `large`: the paper's sizes and hyper-parameters (section 4.1 and the released configuration): batch 2,880 (large:
    2,400), 20 epochs of 14 M pairs, peak 3e-4 (2e-4), weight decay 0.05, 3,000 steps of warm-up, 224 pixels. The decay by
    0.9 an epoch is a cosine here. Nobody here has run them.
    """
    method = BlipConfig.preset(preset)
    if preset == "tiny":
        optimiser = OptimiserSpec(weight_decay=0.05, warmup=0.05, rules=(("temperature", 0.1),))
        return BlipRecipe(
            settings=Settings(steps=1000, batch=64, lr=1e-3, optimiser=optimiser),
            preset=preset,
            data=WORLD,
            view=ViewSpec(size=method.image.size, crop="squash"),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            method=method,
        )
    batch, lr = (2880, 3e-4) if preset == "base" else (2400, 2e-4)
    optimiser = OptimiserSpec(weight_decay=0.05, betas=(0.9, 0.999), epsilon=1e-8, warmup=3000, floor=0.0, clip=0.0)
    return BlipRecipe(
        settings=Settings(
            steps=20 * 14_000_000 // batch,
            batch=batch,
            lr=lr,
            checkpoint_every=1000,
            log_every=50,
            optimiser=optimiser,
        ),
        preset=preset,
        data="",
        view=ViewSpec(size=224, crop="squash", augment="randaugment"),
        tokenizer=TokenizerSpec(vocabulary=30522, context=30),
        method=method,
    )
