"""VQ-KD's recipes: an image tokeniser for masked image modelling.

multiway train clip --data scenes:easy,objects=1-3 --view.mean 1 1 1 --view.std 0.5 0.5 0.5 --out runs/teacher
multiway train vqkd --teacher runs/teacher --out runs/codes
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from multiway.batch import DataInfo, ViewSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.method import Method
from multiway.methods.vqkd import Vqkd, VqkdConfig
from multiway.recipes.lent import vision_tower
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD, white_is_zero

__all__ = ["VqkdRecipe", "vqkd"]


@dataclass(frozen=True)
class VqkdRecipe(Recipe):
    """An image tokeniser that learns from a teacher's features.

    Attributes:
        teacher: run whose ViT is the teacher.
    """

    name: ClassVar[str] = "vqkd"
    method_name: ClassVar[str] = "vqkd"

    teacher: str = ""
    method: VqkdConfig = VqkdConfig()

    def lenders(self) -> tuple[str, ...]:
        """The teacher's run."""
        return (self.teacher,) if self.teacher else ()

    def build(self, info: DataInfo) -> Method:
        """The method with the teacher's tensors in it."""
        tower = vision_tower(self.teacher, "--teacher", self.view)
        method = Vqkd(replace(self.method, teacher=tower.config))
        method.teacher.load_state_dict(tower.state_dict())
        return method


def vqkd(preset: str = "tiny") -> VqkdRecipe:
    """VQ-KD at a preset.

    `tiny`: 256 codes for the patches of scenes. `base`: the paper's tokeniser and hyper-parameters (section 4.1 and the
    released configuration): batch 512, 100 epochs of ImageNet, peak 2e-4. Nobody here has run it.
    """
    method = VqkdConfig.preset(preset)
    size = method.tokeniser.image.size
    if preset == "tiny":
        return VqkdRecipe(
            settings=Settings(steps=300, batch=64, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.05)),
            preset=preset,
            data=WORLD,
            view=white_is_zero(size),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=1e-4, betas=(0.9, 0.99), warmup=0.05)
    return VqkdRecipe(
        settings=Settings(steps=250_000, batch=512, lr=2e-4, checkpoint_every=1000, log_every=50, optimiser=optimiser),
        preset=preset,
        data="imagenet:data/imagenet",
        view=ViewSpec(size=size, crop="center", augment="resized_crop"),
        method=method,
    )
