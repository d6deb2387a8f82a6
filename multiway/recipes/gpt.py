"""GPT's recipes: the blind twin of the methods that write captions, and the paper's size.

multiway train gpt --out runs/blind                                about a minute on two CPU cores
multiway eval runs/blind --task captioning --data scenes:easy,objects=1-3@test
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.gpt import GptConfig
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD

__all__ = ["GptRecipe", "gpt"]


@dataclass(frozen=True)
class GptRecipe(Recipe):
    """Captions from their own words alone."""

    name: ClassVar[str] = "gpt"
    method_name: ClassVar[str] = "gpt"

    method: GptConfig = GptConfig()


def gpt(preset: str = "tiny") -> GptRecipe:
    """GPT at a preset.

    `tiny`: the blind twin of `coca`, `simvlm` and `blip` at theirs: the same captions, batch and steps.

    `base`: the paper's size and its hyper-parameters (section 4.1): batch 64, peak 2.5e-4, 2,000 steps of warm-up, a cosine
    to zero, weight decay 0.01; its 100 epochs are given as steps of the data at hand. Nobody here has run it.
    """
    method = GptConfig.preset(preset)
    if preset == "tiny":
        return GptRecipe(
            settings=Settings(steps=1000, batch=64, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.05)),
            preset=preset,
            data=WORLD,
            # Captions come with pictures here; they are drawn as small as can be, and not looked at.
            view=ViewSpec(size=8, crop="squash"),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=0.01, betas=(0.9, 0.999), warmup=2000, floor=0.0)
    return GptRecipe(
        settings=Settings(steps=1_000_000, batch=64, lr=2.5e-4, checkpoint_every=1000, optimiser=optimiser),
        preset=preset,
        data="",
        view=ViewSpec(size=8, crop="squash"),
        tokenizer=TokenizerSpec(vocabulary=40478, context=512),
        method=method,
    )
