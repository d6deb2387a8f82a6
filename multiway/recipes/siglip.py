"""SigLIP's recipes: the bundled world of scenes on a laptop, and the released sizes.

multiway train siglip --out runs/a                                 scenes of one to three things; two CPU cores
torchrun --nproc-per-node 8 -m multiway train siglip --preset base --data 'shards/{0000..0999}.tar' --out runs/b
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.siglip import SiglipConfig
from multiway.recipes.pairs import PairsRecipe
from multiway.recipes.world import WORLD, white_is_zero

__all__ = ["SiglipRecipe", "siglip"]


@dataclass(frozen=True)
class SiglipRecipe(PairsRecipe):
    """Pre-training of two towers, a question per pair."""

    name: ClassVar[str] = "siglip"
    method_name: ClassVar[str] = "siglip"

    method: SiglipConfig = SiglipConfig()


def siglip(preset: str = "tiny") -> SiglipRecipe:
    """SigLIP at a preset.

    `tiny`: scenes of one to three plain things; docs/methods/siglip.md has its scores, machine and date.

    The released sizes (`base`, `so400m`) take the hyper-parameters of the paper's runs from scratch
    on WebLI: batch 32,768, beta2 0.95 against the loss spikes of large batches, learning rate 1e-3, weight decay
    1e-4. Nobody here has run them; their shapes are those of the released weights.
    """
    method = SiglipConfig.preset(preset)
    if preset == "tiny":
        # Scale and bias start far out and have far to go in a thousand steps: they move ten times as fast. The sum over all
        # questions makes for steep first steps, in which a short warm-up lost all difference between pictures.
        rules = (("^log_scale$", 10.0), ("^bias$", 10.0))
        return SiglipRecipe(
            settings=Settings(
                steps=1000, batch=64, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.2, rules=rules)
            ),
            preset=preset,
            data=WORLD,
            view=white_is_zero(method.image.size),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=1e-4, betas=(0.9, 0.95), epsilon=1e-8, warmup=20_000)
    return SiglipRecipe(
        settings=Settings(
            steps=1_220_000, batch=32_768, lr=1e-3, checkpoint_every=1000, log_every=50, optimiser=optimiser
        ),
        preset=preset,
        data="",
        view=ViewSpec(size=method.image.size, crop="squash", mean=(0.5,) * 3, std=(0.5,) * 3),
        tokenizer=TokenizerSpec(vocabulary=method.text.vocabulary, context=method.text.context),
        method=method,
    )
