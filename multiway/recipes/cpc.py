"""CPC's recipes: the bundled pictures on a laptop, and the paper's size.

multiway train cpc --data emoji --out runs/a                       some minutes on two CPU cores
torchrun --nproc-per-node 32 -m multiway train cpc --preset rn101 --data imagenet:data/imagenet --out runs/b
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.data.views import CropSpec, ViewsSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.cpc import CpcConfig
from multiway.recipes.pictures import PicturesRecipe

__all__ = ["CpcRecipe", "cpc"]

_IMAGENET = 1_281_167  # pictures


@dataclass(frozen=True)
class CpcRecipe(PicturesRecipe):
    """See `methods/cpc.py`."""

    name: ClassVar[str] = "cpc"
    method_name: ClassVar[str] = "cpc"

    method: CpcConfig = CpcConfig()


def cpc(preset: str = "tiny") -> CpcRecipe:
    """CPC at a preset; the paper's (section 3.2): grey squares of 256 pixels out of 300, Adam at 2e-4, 32 GPUs of 16 pictures. How
    long it trained the paper does not say: 100 epochs here. Nobody here has run it.
    """
    method = CpcConfig.preset(preset)
    if preset == "tiny":
        return CpcRecipe(
            settings=Settings(steps=400, batch=64, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.1)),
            view=ViewSpec(size=32, crop="pad"),
            views=ViewsSpec((CropSpec(32, scale=(0.5, 1.0), flip=0.5),)),
            method=method,
        )
    shown = (256 / 300) ** 2
    optimiser = OptimiserSpec(weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8, warmup=0, decay="constant", clip=0.0)
    return CpcRecipe(
        settings=Settings(
            steps=100 * (_IMAGENET // 512), batch=512, lr=2e-4, checkpoint_every=1000, log_every=50, optimiser=optimiser
        ),
        preset=preset,
        data="imagenet:data/imagenet",
        view=ViewSpec(size=256, crop="center", margin=300 / 256),
        views=ViewsSpec((CropSpec(256, scale=(shown, shown), aspect=1.0, flip=0.5, grey=1.0),)),
        method=method,
    )
