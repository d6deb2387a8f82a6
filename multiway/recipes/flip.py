"""FLIP's recipe: CLIP on some of each picture's patches, then for a short while on all.

Y. Li, Fan, Hu, Feichtenhofer and He, Scaling Language-Image Pre-training via Masking, CVPR 2023, arXiv 2212.00794. Half or three
quarters of the patches are left out at random, so that more pairs are seen in the same time (section 3); a short tuning on whole
pictures closes the gap to how the model is used (`unmasked tuning`, section 4.1 and table 1e: 0.32 epochs).

multiway train flip --out runs/a                                   runs/a/1-dropped, then runs/a/2-whole
multiway train flip --drop 0.75 --batch 512 --out runs/b           the paper's larger batch for what is saved
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from multiway.recipes.clip import ClipRecipe, clip
from multiway.recipes.recipe import Recipe
from multiway.recipes.stages import Stage, as_recipe, derived, runs

__all__ = ["FlipRecipe", "flip"]


@dataclass(frozen=True)
class FlipRecipe(ClipRecipe):
    """CLIP with patches left out, and a short run without.

    Attributes:
        tune_steps: of the second stage.
        tune_lr: its peak learning rate.
    """

    name: ClassVar[str] = "flip"

    tune_steps: int = 60
    tune_lr: float = 1e-4

    def stages(self) -> tuple[tuple[str, Recipe], ...]:
        """The two runs."""
        tuned = {"settings.steps": self.tune_steps, "settings.horizon": 0, "settings.lr": self.tune_lr, "drop": 0.0}
        return runs(as_recipe(self, ClipRecipe), (Stage("dropped"), Stage("whole", tuned)))


def flip(preset: str = "tiny") -> FlipRecipe:
    """FLIP at a preset of CLIP's with a ViT; half of the patches are left out.

    `tiny`: docs/thrifty-training.md has its scores, machine and date. The paper's sizes take CLIP's batch and rates, and for tuning
    the paper's 0.32 epochs of 400 M pairs at a hundredth of the rate. Nobody here has run them.
    """
    base = replace(clip(preset), drop=0.5)
    if preset == "tiny":
        return derived(base, FlipRecipe)
    batch, rate = base.settings.batch, base.settings.lr
    return derived(base, FlipRecipe, tune_steps=round(0.32 * 400e6 / batch), tune_lr=rate / 100)
