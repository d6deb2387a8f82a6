"""Recipes of self-supervision by several views: the bundled pictures on a laptop, and the papers' sizes.

multiway train simclr --data emoji --out runs/a                     a few minutes on two CPU cores
multiway train dino --data digits --out runs/b
torchrun --nproc-per-node 8 -m multiway train moco --preset v2-rn50 --data imagenet:data/imagenet --out runs/c
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

from multiway.batch import ViewSpec
from multiway.data import view_presets
from multiway.data.views import ViewsSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.byol import ByolConfig
from multiway.methods.dino import DinoConfig
from multiway.methods.instdisc import InstDiscConfig
from multiway.methods.invaspread import InvaSpreadConfig
from multiway.methods.moco import MocoConfig
from multiway.methods.moco_v3 import MocoV3Config
from multiway.methods.simclr import SimClrConfig
from multiway.methods.simsiam import SimSiamConfig
from multiway.methods.swav import SwavConfig
from multiway.recipes.pictures import PicturesRecipe

__all__ = ["byol", "dino", "instdisc", "invaspread", "moco", "moco_v3", "simclr", "simsiam", "swav"]

R = TypeVar("R", bound=PicturesRecipe)


@dataclass(frozen=True)
class SimClrRecipe(PicturesRecipe):
    """See `methods/simclr.py`."""

    name: ClassVar[str] = "simclr"
    method_name: ClassVar[str] = "simclr"

    method: SimClrConfig = SimClrConfig()


@dataclass(frozen=True)
class SimSiamRecipe(PicturesRecipe):
    """See `methods/simsiam.py`."""

    name: ClassVar[str] = "simsiam"
    method_name: ClassVar[str] = "simsiam"

    method: SimSiamConfig = SimSiamConfig()


@dataclass(frozen=True)
class ByolRecipe(PicturesRecipe):
    """See `methods/byol.py`."""

    name: ClassVar[str] = "byol"
    method_name: ClassVar[str] = "byol"

    method: ByolConfig = ByolConfig()


@dataclass(frozen=True)
class MocoRecipe(PicturesRecipe):
    """See `methods/moco.py`."""

    name: ClassVar[str] = "moco"
    method_name: ClassVar[str] = "moco"

    method: MocoConfig = MocoConfig()


@dataclass(frozen=True)
class MocoV3Recipe(PicturesRecipe):
    """See `methods/moco_v3.py`."""

    name: ClassVar[str] = "moco-v3"
    method_name: ClassVar[str] = "moco-v3"

    method: MocoV3Config = MocoV3Config()


@dataclass(frozen=True)
class SwavRecipe(PicturesRecipe):
    """See `methods/swav.py`."""

    name: ClassVar[str] = "swav"
    method_name: ClassVar[str] = "swav"

    method: SwavConfig = SwavConfig()


@dataclass(frozen=True)
class DinoRecipe(PicturesRecipe):
    """See `methods/dino.py`."""

    name: ClassVar[str] = "dino"
    method_name: ClassVar[str] = "dino"

    method: DinoConfig = DinoConfig()


@dataclass(frozen=True)
class InstDiscRecipe(PicturesRecipe):
    """See `methods/instdisc.py`."""

    name: ClassVar[str] = "instdisc"
    method_name: ClassVar[str] = "instdisc"

    method: InstDiscConfig = InstDiscConfig()


@dataclass(frozen=True)
class InvaSpreadRecipe(PicturesRecipe):
    """See `methods/invaspread.py`."""

    name: ClassVar[str] = "invaspread"
    method_name: ClassVar[str] = "invaspread"

    method: InvaSpreadConfig = InvaSpreadConfig()


def _tiny(recipe: type[R], method: object, views: ViewsSpec) -> R:
    """A few minutes on a laptop: 32 pixels of the bundled emoji. `--evaluate knn=@random` measures besides what the probe shows."""
    side = views.views[0].size
    return recipe(
        settings=Settings(steps=400, batch=128, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.1)),
        view=ViewSpec(size=side, crop="pad"),
        views=views,
        method=method,  # type: ignore[call-arg]
    )


def simclr(preset: str = "tiny") -> SimClrRecipe:
    """SimCLR at a preset."""
    return _tiny(SimClrRecipe, SimClrConfig.preset(preset), view_presets.simclr_cifar(32))


def simsiam(preset: str = "tiny") -> SimSiamRecipe:
    """SimSiam at a preset."""
    return _tiny(SimSiamRecipe, SimSiamConfig.preset(preset), view_presets.simclr_cifar(32))


def byol(preset: str = "tiny") -> ByolRecipe:
    """BYOL at a preset."""
    return _tiny(ByolRecipe, ByolConfig.preset(preset), view_presets.simclr_cifar(32))


def moco(preset: str = "tiny") -> MocoRecipe:
    """MoCo at a preset."""
    return _tiny(MocoRecipe, MocoConfig.preset(preset), view_presets.simclr_cifar(32))


def moco_v3(preset: str = "tiny") -> MocoV3Recipe:
    """MoCo v3 at a preset."""
    return _tiny(MocoV3Recipe, MocoV3Config.preset(preset), view_presets.simclr_cifar(32))


def swav(preset: str = "tiny") -> SwavRecipe:
    """SwAV at a preset."""
    return _tiny(SwavRecipe, SwavConfig.preset(preset), view_presets.simclr_cifar(32))


def dino(preset: str = "tiny") -> DinoRecipe:
    """DINO at a preset."""
    return _tiny(DinoRecipe, DinoConfig.preset(preset), view_presets.dino(32, count=4))


def instdisc(preset: str = "tiny") -> InstDiscRecipe:
    """InstDisc at a preset."""
    return _tiny(InstDiscRecipe, InstDiscConfig.preset(preset), view_presets.instdisc_cifar(32))


def invaspread(preset: str = "tiny") -> InvaSpreadRecipe:
    """InvaSpread at a preset."""
    return _tiny(InvaSpreadRecipe, InvaSpreadConfig.preset(preset), view_presets.simclr_cifar(32))
