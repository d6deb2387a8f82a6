"""SimVLM's recipes: the bundled world of scenes on a laptop, and the paper's sizes.

multiway train simvlm --out runs/a                                 scenes of one to three things; two CPU cores
multiway train simvlm --method.no-prefix --out runs/b              language modelling after the picture alone
torchrun --nproc-per-node 8 -m multiway train simvlm --preset base --data 'shards/{0000..0999}.tar' --out runs/c
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.simvlm import SimvlmConfig
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD

__all__ = ["SimvlmRecipe", "simvlm"]


@dataclass(frozen=True)
class SimvlmRecipe(Recipe):
    """Prefix language modelling of captions after their pictures."""

    name: ClassVar[str] = "simvlm"
    method_name: ClassVar[str] = "simvlm"

    method: SimvlmConfig = SimvlmConfig()


def simvlm(preset: str = "tiny") -> SimvlmRecipe:
    """SimVLM at a preset.

    `tiny`: scenes of one to three plain things; docs/methods/simvlm.md has its scores, machine and date.

    `base`, `large`, `huge`: the paper's sizes and hyper-parameters (section 4.1): 4,096 pairs a step, a million steps, peak
    5e-4, weight decay 0.01. The paper adds 512 documents of text to every step; `method.blind_steps` is what comes near it
    here. Nobody here has run them.
    """
    method = SimvlmConfig.preset(preset)
    if preset == "tiny":
        return SimvlmRecipe(
            settings=Settings(steps=1000, batch=64, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.05)),
            preset=preset,
            data=WORLD,
            view=ViewSpec(size=method.image.size, crop="squash"),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=0.01, betas=(0.9, 0.999), warmup=0.02, floor=0.0, decay="linear")
    return SimvlmRecipe(
        settings=Settings(
            steps=1_000_000, batch=4096, lr=5e-4, checkpoint_every=1000, log_every=50, optimiser=optimiser
        ),
        preset=preset,
        data="",
        view=ViewSpec(size=method.image.size, crop="squash", augment="crop", margin=1.1),
        tokenizer=TokenizerSpec(vocabulary=method.text.vocabulary, context=method.text.context),
        method=method,
    )
