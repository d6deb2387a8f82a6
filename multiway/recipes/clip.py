"""CLIP's recipes: the bundled pictures on a laptop, and the paper's sizes.

multiway train clip --data emoji --out runs/a                      about 5 minutes on two CPU cores
multiway train clip --data captions.jsonl --images pictures/ --out runs/b
torchrun --nproc-per-node 8 -m multiway train clip --preset vit-b-32 --data 'shards/{0000..0999}.tar' --out runs/c
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.clip import ClipConfig, image_size
from multiway.recipes.pairs import PairsRecipe

__all__ = ["ClipRecipe", "clip"]


@dataclass(frozen=True)
class ClipRecipe(PairsRecipe):
    """Contrastive pre-training of two towers."""

    name: ClassVar[str] = "clip"
    method_name: ClassVar[str] = "clip"

    method: ClipConfig = ClipConfig()


def clip(preset: str = "tiny") -> ClipRecipe:
    """CLIP at a preset.

    `tiny`: a ViT and a text transformer on the bundled emoji; the README has its scores, machine and date.

    The paper's sizes (`vit-b-32`, ..., `rn50x64`) take its hyper-parameters (Radford et al. 2021, tables 18-20):
    batch 32,768, 32 epochs of 400 M pairs, weight decay 0.2, 2,000 steps of warm-up, cosine decay. Nobody here has run
    them; the shapes are checked against the published weights' layout, the recipe's score is not.
    """
    method = ClipConfig.preset(preset)
    if preset == "tiny":
        return ClipRecipe(
            settings=Settings(steps=580, batch=256, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.1, warmup=0.05)),
            preset=preset,
            view=ViewSpec(size=image_size(method), crop="pad", augment="affine"),
            tokenizer=TokenizerSpec(vocabulary=2048, context=32),
            method=method,
        )
    lr, beta2, epsilon = _PAPER_OPTIMISER[preset]
    optimiser = OptimiserSpec(weight_decay=0.2, betas=(0.9, beta2), epsilon=epsilon, warmup=2000)
    return ClipRecipe(
        settings=Settings(steps=390_625, batch=32_768, lr=lr, checkpoint_every=1000, log_every=50, optimiser=optimiser),
        preset=preset,
        view=ViewSpec(size=image_size(method), crop="center", augment="crop", margin=1.15),
        tokenizer=TokenizerSpec(vocabulary=method.text.vocabulary, context=method.text.context),
        method=method,
    )


# Tables 19 and 20: learning rates; table 18: Adam's beta2 and epsilon, which differ for the ResNets and the ViTs.
_PAPER_OPTIMISER = {
    name: (rate, *((0.98, 1e-6) if name.startswith("vit") else (0.999, 1e-8)))
    for name, rate in {
        "vit-b-32": 5e-4,
        "vit-b-16": 5e-4,
        "vit-l-14": 4e-4,
        "vit-l-14-336": 2e-5,
        "rn50": 5e-4,
        "rn101": 5e-4,
        "rn50x4": 5e-4,
        "rn50x16": 4e-4,
        "rn50x64": 3.6e-4,
    }.items()
}
