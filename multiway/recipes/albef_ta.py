"""Text assignment: the step between ALBEF's pre-training and NLVR2.

multiway train albef --out runs/a
multiway train albef-ta --init runs/a --out runs/ta
multiway finetune runs/ta --task nlvr2 --method.two own --out runs/nlvr2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.albef import AlbefConfig
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD

__all__ = ["AlbefTaRecipe", "albef_ta"]


@dataclass(frozen=True)
class AlbefTaRecipe(Recipe):
    """Which of two pictures a text belongs to, or neither: ALBEF with doubled blocks, begun from a run of ALBEF."""

    name: ClassVar[str] = "albef-ta"
    method_name: ClassVar[str] = "albef-ta"

    method: AlbefConfig = AlbefConfig()


def albef_ta(preset: str = "tiny") -> AlbefTaRecipe:
    """Text assignment at a preset; `--init RUN` names the ALBEF that it begins from, of the same sizes.

    `tiny`: the scenes of `albef`'s recipe, 400 steps at a third of its rate, and no score measured yet.

    `base`: the released configuration: one epoch of 5.1 M pairs in batches of 64 on each of 8 GPUs, peak 2e-5 falling to 1e-5, weight
    decay 0.02, 256 pixels, 25 tokens. Nobody here has run it.
    """
    method = AlbefConfig.preset(preset)
    if preset == "tiny":
        return AlbefTaRecipe(
            settings=Settings(steps=400, batch=64, lr=3e-4, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.1)),
            preset=preset,
            data=WORLD,
            view=ViewSpec(size=method.image.size, crop="squash"),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=0.02, betas=(0.9, 0.999), epsilon=1e-8, warmup=100, floor=0.5, clip=0.0)
    return AlbefTaRecipe(
        settings=Settings(steps=10_000, batch=512, lr=2e-5, checkpoint_every=1000, log_every=50, optimiser=optimiser),
        preset=preset,
        data="",
        view=ViewSpec(size=256, crop="squash", augment="crop"),
        tokenizer=TokenizerSpec(vocabulary=30522, context=25),
        method=method,
    )
