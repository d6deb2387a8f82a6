"""CMC's recipes: channels of the bundled pictures on a laptop, and the paper's sizes.

multiway train cmc --data emoji --out runs/a                       a few minutes on two CPU cores
multiway train cmc --method.views l ab sobel coarse --method.graph core --out runs/b
torchrun --nproc-per-node 8 -m multiway train cmc --preset rn50 --data imagenet:data/imagenet --out runs/c
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from multiway.batch import ViewSpec
from multiway.config import ConfigError
from multiway.data.views import CropSpec, ViewsSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.cmc import CmcConfig
from multiway.recipes.pictures import PicturesRecipe

__all__ = ["CmcRecipe", "cmc"]

_IMAGENET = 1_281_167  # pictures
_AS_IT_IS = ViewSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # nothing taken off, nothing divided by


@dataclass(frozen=True)
class CmcRecipe(PicturesRecipe):
    """See `methods/cmc.py`."""

    name: ClassVar[str] = "cmc"
    method_name: ClassVar[str] = "cmc"

    method: CmcConfig = CmcConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.view.mean, self.view.std) != (_AS_IT_IS.mean, _AS_IT_IS.std):
            raise ConfigError(
                f"CMC takes colours apart, and wants them in [0, 1]; given mean {self.view.mean} and deviation {self.view.std}: set "
                "--view.mean 0 0 0 --view.std 1 1 1"
            )


def cmc(preset: str = "tiny") -> CmcRecipe:
    """CMC at a preset; the paper's have the settings of the code (`train_CMC.py`): one crop, 400 epochs of batch 256. Nobody here has
    run them.
    """
    method = CmcConfig.preset(preset)
    size = 32 if preset == "tiny" else 224
    views = ViewsSpec((CropSpec(size, scale=(0.2 if preset == "tiny" else 0.08, 1.0), flip=0.5),))
    if preset == "tiny":
        return CmcRecipe(
            settings=Settings(steps=400, batch=128, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.1)),
            view=replace(_AS_IT_IS, size=size, crop="pad"),
            views=views,
            method=method,
        )
    optimiser = OptimiserSpec(
        kind="sgd",
        weight_decay=1e-4,
        warmup=0,
        clip=0.0,
        decay="steps",
        steps=(250 / 400, 300 / 400, 350 / 400),
        exempt=False,
    )
    return CmcRecipe(
        settings=Settings(
            steps=400 * (_IMAGENET // 256), batch=256, lr=0.03, checkpoint_every=1000, log_every=50, optimiser=optimiser
        ),
        preset=preset,
        data="imagenet:data/imagenet",
        view=replace(_AS_IT_IS, size=size, crop="center", margin=256 / 224),
        views=views,
        method=method,
    )
