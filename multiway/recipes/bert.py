"""BERT's recipes: the blind twin of the methods that see, and the paper's size.

multiway train bert --out runs/blind                               about 2 minutes on two CPU cores
multiway eval runs/blind --task masked-words --data scenes@test
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.data.masking import Masking
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.bert import BertConfig
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD

__all__ = ["BertRecipe", "bert"]


@dataclass(frozen=True)
class BertRecipe(Recipe):
    """Masked words from words alone."""

    name: ClassVar[str] = "bert"
    method_name: ClassVar[str] = "bert"

    method: BertConfig = BertConfig()


def bert(preset: str = "tiny") -> BertRecipe:
    """BERT at a preset.

    `tiny`: the blind twin of `albef` at its `tiny`: the same number of text blocks, captions, masks, batch and steps.

    `base`: the paper's size and its first phase (section A.2): batch 256, a million steps, peak 1e-4, 10,000 steps of warm-up,
    linear decay. Nobody here has run it.
    """
    method = BertConfig.preset(preset)
    if preset == "tiny":
        return BertRecipe(
            settings=Settings(steps=1500, batch=64, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.05)),
            preset=preset,
            data=WORLD,
            # Captions come with pictures here; they are drawn as small as can be, and not looked at.
            view=ViewSpec(size=8, crop="squash"),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            masking=Masking(ratio=0.3, least=1),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=0.01, betas=(0.9, 0.999), warmup=10_000, decay="linear")
    return BertRecipe(
        settings=Settings(steps=1_000_000, batch=256, lr=1e-4, checkpoint_every=1000, optimiser=optimiser),
        preset=preset,
        data="",
        view=ViewSpec(size=8, crop="squash"),
        tokenizer=TokenizerSpec(vocabulary=30522, context=128),
        masking=Masking(ratio=0.15, whole_words=False),
        method=method,
    )
