"""FILIP's recipes: the bundled world of scenes on a laptop, and the paper's sizes.

multiway train filip --out runs/a                                 scenes of one to three things; two CPU cores
torchrun --nproc-per-node 8 -m multiway train filip --preset base --data 'shards/{0000..0999}.tar' --out runs/b
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.filip import FilipConfig
from multiway.recipes.pairs import PairsRecipe
from multiway.recipes.world import WORLD

__all__ = ["FilipRecipe", "filip"]


@dataclass(frozen=True)
class FilipRecipe(PairsRecipe):
    """Pre-training of two towers that are compared token by token."""

    name: ClassVar[str] = "filip"
    method_name: ClassVar[str] = "filip"

    method: FilipConfig = FilipConfig()


def filip(preset: str = "tiny") -> FilipRecipe:
    """FILIP at a preset.

    `tiny`: scenes of one to three plain things; docs/methods/filip.md has its scores, machine and date.

    The paper's sizes (`base`, `large`) were trained with LAMB, which there is none of here; CLIP's AdamW, batch and epochs of
    its data stand in. Nobody here has run them.
    """
    method = FilipConfig.preset(preset)
    if preset == "tiny":
        return FilipRecipe(
            settings=Settings(steps=800, batch=64, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.05)),
            preset=preset,
            data=WORLD,
            view=ViewSpec(size=method.image.size, crop="squash"),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=0.2, betas=(0.9, 0.98), epsilon=1e-6, warmup=2000)
    return FilipRecipe(
        settings=Settings(
            steps=390_625, batch=32_768, lr=5e-4, checkpoint_every=1000, log_every=50, optimiser=optimiser
        ),
        preset=preset,
        data="",
        view=ViewSpec(size=method.image.size, crop="squash"),
        tokenizer=TokenizerSpec(vocabulary=method.text.vocabulary, context=method.text.context),
        method=method,
    )
