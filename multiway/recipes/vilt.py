"""ViLT's recipes: the bundled world of scenes on a laptop, and the paper's size.

multiway train vilt --out runs/a                                  scenes of one to three things; two CPU cores
torchrun --nproc-per-node 8 -m multiway train vilt --preset base --data 'shards/{0000..0999}.tar' --out runs/b
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
from multiway.methods.vilt import ViltConfig
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD

__all__ = ["ViltRecipe", "vilt"]

_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class ViltRecipe(Recipe):
    """Words and patches in one transformer: matching, masked words, word-patch alignment."""

    name: ClassVar[str] = "vilt"
    method_name: ClassVar[str] = "vilt"

    method: ViltConfig = ViltConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method.words and self.masking.ratio <= 0:
            raise ConfigError(
                f"masking.ratio is {self.masking.ratio}; ViLT guesses masked words and needs one above 0, or --no-method.words"
            )
        if self.method.mpp > 0 and (self.view.mean, self.view.std) != (self.method.mean, self.method.std):
            raise ConfigError(
                f"pictures are normalised by {self.view.mean} and {self.view.std}, and masked patch prediction undoes "
                f"{self.method.mean} and {self.method.std}; give view and method the same mean and std"
            )


def vilt(preset: str = "tiny") -> ViltRecipe:
    """ViLT at a preset.

    `tiny`: scenes of one to three plain things; docs/methods/vilt.md has its scores, machine and date.

    `base`: the paper's size and hyper-parameters (section 4.2): batch 4096, 100,000 steps, AdamW at 1e-4 with weight decay
    0.01, warm-up over a tenth, linear decay, 384 pixels, 15 % of whole words masked, no augmentation. Nobody here has run it.
    """
    method = ViltConfig.preset(preset)
    if preset == "tiny":
        return ViltRecipe(
            settings=Settings(steps=1500, batch=64, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.05)),
            preset=preset,
            data=WORLD,
            # White is 0: what all pictures share would else be most of what every patch says (docs/methods/vilt.md).
            view=ViewSpec(size=method.size, crop="squash", mean=method.mean, std=method.std),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            masking=Masking(ratio=0.3, least=1),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=0.01, betas=(0.9, 0.98), epsilon=1e-8, warmup=0.1, decay="linear", clip=0.0)
    return ViltRecipe(
        settings=Settings(steps=100_000, batch=4096, lr=1e-4, checkpoint_every=1000, log_every=50, optimiser=optimiser),
        preset=preset,
        data="",
        view=ViewSpec(size=384, crop="squash", mean=_HALF, std=_HALF),
        tokenizer=TokenizerSpec(vocabulary=30522, context=40),
        masking=Masking(ratio=0.15),
        method=method,
    )
