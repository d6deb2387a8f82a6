"""Recipes of self-supervision by several views: the bundled pictures on a laptop, and the papers' sizes.

multiway train simclr --data emoji --out runs/a                     a few minutes on two CPU cores
multiway train dino --data digits --out runs/b
torchrun --nproc-per-node 8 -m multiway train moco --preset v2-rn50 --data imagenet:data/imagenet --out runs/c

Every preset with its settings, its source and the score to expect: docs/published-pictures.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from multiway.methods.siamese import SiameseConfig
from multiway.methods.simclr import SimClrConfig
from multiway.methods.simsiam import SimSiamConfig
from multiway.methods.swav import SwavConfig
from multiway.nn.backbone import resnet
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.nn.resnet import ResNetConfig
from multiway.recipes.pictures import PicturesRecipe

__all__ = ["byol", "dino", "instdisc", "invaspread", "moco", "moco_v3", "simclr", "simsiam", "swav"]

R = TypeVar("R", bound=PicturesRecipe)
C = TypeVar("C", bound=SiameseConfig)


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


IMAGENET = 1_281_167
CIFAR = 50_000
STL10 = 100_000  # unlabelled pictures


def _tiny(recipe: type[R], method: SiameseConfig, views: ViewsSpec) -> R:
    """A few minutes on a laptop: 32 pixels of the bundled emoji. `--evaluate knn=@random` measures besides what the probe shows."""
    # What learns best in so few steps; with a sum over a thousand noise rows as loss that is less.
    lr = 3e-3 if isinstance(method.backbone, ResNetConfig) and recipe is not InstDiscRecipe else 1e-3
    return recipe(
        settings=Settings(steps=400, batch=128, lr=lr, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.1)),
        view=ViewSpec(size=views.views[0].size, crop="pad"),
        views=views,
        method=method,  # type: ignore[call-arg]
    )


def _published(
    recipe: type[R],
    method: object,
    views: ViewsSpec,
    preset: str,
    epochs: int,
    batch: int,
    lr: float,
    by: OptimiserSpec,
) -> R:
    """The paper's hyper-parameters, on ImageNet or, of a preset that says so, CIFAR-10. Nobody here has run them.

    Args:
        lr: at this batch.
        by: optimiser; its warm-up and the steps of its decay count epochs.
    """
    small = preset.endswith("cifar")
    each = (CIFAR if small else IMAGENET) // batch  # steps an epoch
    optimiser = replace(by, warmup=by.warmup * each, steps=tuple(step / epochs for step in by.steps))
    settings = Settings(
        steps=epochs * each, batch=batch, lr=lr, checkpoint_every=1000, log_every=50, optimiser=optimiser
    )
    return recipe(
        settings=settings,
        preset=preset,
        data="cifar10:data/cifar10" if small else "imagenet:data/imagenet",
        view=ViewSpec(size=views.views[0].size, crop="center", margin=1.0 if small else 256 / 224),
        views=views,
        method=method,  # type: ignore[call-arg]
    )


def _adam(recipe: type[R], method: SiameseConfig, preset: str) -> R:
    """SimCLR and BYOL with Adam, as Ermolov et al. compare them with W-MSE (2021, arXiv 2007.06346; github.com/htdt/self-supervised):
    1,000 epochs of CIFAR or 2,000 of STL-10, batch 512, a fifth of the rate in the last 50 epochs and again in the last 25.

    Of STL-10 the 100,000 unlabelled pictures are learnt from, without the 5,000 labelled ones that the code adds; weight decay is
    decoupled. Nobody here has run them.
    """
    stl = preset.endswith("stl10")
    size, epochs, lr = (64, 2000, 2e-3) if stl else (32, 1000, 3e-3)
    by = OptimiserSpec(
        weight_decay=1e-6, betas=(0.9, 0.999), epsilon=1e-8, warmup=500, clip=0.0, exempt=False,
        decay="steps", steps=(1 - 50 / epochs, 1 - 25 / epochs), factor=0.2,
    )  # fmt: skip
    steps = epochs * ((STL10 if stl else CIFAR) // 512)
    kind = replace(view_presets.moco_v2(size).views[0], blur=0.0, grey=0.1, resample="bicubic")
    if stl:  # crops are cut from all 96 pixels
        view = ViewSpec(size, "center", (0.43, 0.42, 0.39), (0.27, 0.26, 0.27), margin=96 / 64)
    else:
        view = ViewSpec(size, "center", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    return recipe(
        settings=Settings(steps=steps, batch=512, lr=lr, checkpoint_every=1000, log_every=50, optimiser=by),
        preset=preset,
        data="stl10:data/stl10@unlabeled" if stl else "cifar10:data/cifar10",
        view=view,
        views=ViewsSpec((kind, kind)),
        method=method,  # type: ignore[call-arg]
    )


def _sized(config: type[C], preset: str, adam: C) -> C:
    """The method at a preset; those of `_adam` differ between CIFAR and STL-10 in the width of the projection.

    Raises:
        KeyError: for an unknown name, with the names that exist.
    """
    widths = {"rn18-adam-cifar": 64, "rn18-adam-stl10": 128}
    if preset in widths:
        output = widths[preset]
        predictor = None if adam.predictor is None else replace(adam.predictor, output=output)
        return replace(adam, projector=replace(adam.projector, output=output), predictor=predictor)
    try:
        return config.preset(preset)  # type: ignore[attr-defined, no-any-return]
    except KeyError as error:
        raise KeyError(f"{error.args[0]}, {', '.join(widths)}") from None


def _lars(weight_decay: float, warmup: float = 10, **more: object) -> OptimiserSpec:
    return replace(OptimiserSpec(kind="lars", weight_decay=weight_decay, warmup=warmup, clip=0.0), **more)  # type: ignore[arg-type]


def _sgd(weight_decay: float = 1e-4, steps: tuple[float, ...] = (), **more: object) -> OptimiserSpec:
    """Momentum SGD as the papers' code has it, which decays every parameter; with steps a tenth of the rate after each."""
    spec = OptimiserSpec(kind="sgd", weight_decay=weight_decay, warmup=0, clip=0.0, exempt=False)
    return replace(spec, decay="steps" if steps else "cosine", steps=steps, **more)  # type: ignore[arg-type]


def simclr(preset: str = "tiny") -> SimClrRecipe:
    """SimCLR at a preset; the papers' are of sections B.6 and B.9, and the code's README (arXiv 2002.05709).

    `rn18-adam-cifar` and `rn18-adam-stl10` are Ermolov et al.'s (arXiv 2007.06346).
    """
    adam = SimClrConfig(resnet(18, "cifar"), MlpHeadConfig(hidden=1024, output_norm="batch"), temperature=0.5)
    method = _sized(SimClrConfig, preset, adam)
    if preset == "tiny":
        return _tiny(SimClrRecipe, method, view_presets.simclr_cifar(32))
    if "adam" in preset:
        return _adam(SimClrRecipe, method, preset)
    if preset == "rn18-cifar":
        return _published(SimClrRecipe, method, view_presets.simclr_cifar(), preset, 1000, 512, 1.0, _lars(1e-4))
    if preset.startswith("v2"):  # arXiv 2006.10029, section 3: 0.1 sqrt(4096), reached after 5 % of the epochs
        return _published(SimClrRecipe, method, view_presets.simclr(), preset, 800, 4096, 6.4, _lars(1e-4, warmup=40))
    return _published(SimClrRecipe, method, view_presets.simclr(), preset, 100, 4096, 4.8, _lars(1e-6))


def simsiam(preset: str = "tiny") -> SimSiamRecipe:
    """SimSiam at a preset (arXiv 2011.10566, sections 3 and D): a rate of 0.05 for 256, not decayed in the predictor."""
    method = SimSiamConfig.preset(preset)
    if preset == "tiny":
        return _tiny(SimSiamRecipe, method, view_presets.simclr_cifar(32))
    if preset == "rn18-cifar":
        views = view_presets.simsiam(32)
        still = ViewsSpec(tuple(replace(kind, blur=0.0) for kind in views.views))
        by = _sgd(5e-4, constant_rate=("^predictor",))
        return _published(SimSiamRecipe, method, still, preset, 800, 512, 0.06, by)
    by = _sgd(1e-4, constant_rate=("^predictor",))
    return _published(SimSiamRecipe, method, view_presets.simsiam(), preset, 100, 512, 0.1, by)


def byol(preset: str = "tiny") -> ByolRecipe:
    """BYOL at a preset (arXiv 2006.07733, section 3.3, and appendix F for 300 epochs).

    `rn18-adam-cifar` and `rn18-adam-stl10` are Ermolov et al.'s (arXiv 2007.06346).
    """
    head = MlpHeadConfig(hidden=1024)
    method = _sized(ByolConfig, preset, ByolConfig(resnet(18, "cifar"), head, head, momentum=0.99))
    if preset == "tiny":
        return _tiny(ByolRecipe, method, view_presets.simclr_cifar(32))
    if "adam" in preset:
        return _adam(ByolRecipe, method, preset)
    if preset == "rn18-cifar":
        return _published(ByolRecipe, method, view_presets.simclr_cifar(), preset, 1000, 512, 0.4, _lars(1.5e-6))
    epochs, rate, decay = (300, 0.3, 1e-6) if preset.endswith("300") else (1000, 0.2, 1.5e-6)
    return _published(ByolRecipe, method, view_presets.byol(), preset, epochs, 4096, rate * 16, _lars(decay))


def moco(preset: str = "tiny") -> MocoRecipe:
    """MoCo at a preset (arXiv 1911.05722, section 4; arXiv 2003.04297; the authors' demonstration on CIFAR-10)."""
    method = MocoConfig.preset(preset)
    if preset == "tiny":
        return _tiny(MocoRecipe, method, view_presets.simclr_cifar(32))
    if preset.endswith("cifar"):
        return _published(MocoRecipe, method, view_presets.moco_v2_cifar(), preset, 200, 512, 0.06, _sgd(5e-4))
    if preset.startswith("v1"):
        return _published(MocoRecipe, method, view_presets.moco_v1(), preset, 200, 256, 0.03, _sgd(steps=(120, 160)))
    return _published(MocoRecipe, method, view_presets.moco_v2(), preset, 200, 256, 0.03, _sgd())


def moco_v3(preset: str = "tiny") -> MocoV3Recipe:
    """MoCo v3 at a preset (arXiv 2104.02057, A.1; the code's CONFIG.md): 1.5e-4 for 256 with a ViT, 0.3 with a ResNet."""
    method = MocoV3Config.preset(preset)
    if preset == "tiny":
        return _tiny(MocoV3Recipe, method, view_presets.simclr_cifar(32))
    if preset == "rn50":
        return _published(MocoV3Recipe, method, view_presets.moco_v3(smallest=0.2), preset, 300, 4096, 4.8, _lars(1e-6))
    by = OptimiserSpec(weight_decay=0.1, betas=(0.9, 0.999), epsilon=1e-8, warmup=40, clip=0.0)
    return _published(MocoV3Recipe, method, view_presets.moco_v3(), preset, 300, 4096, 2.4e-3, by)


def swav(preset: str = "tiny") -> SwavRecipe:
    """SwAV at a preset (arXiv 2006.09882, section A.1; the code's scripts): 4.8 for 4,096, 0.6 for 256, down to a thousandth."""
    method = SwavConfig.preset(preset)
    if preset == "tiny":
        return _tiny(SwavRecipe, method, view_presets.simclr_cifar(32))
    if preset == "rn18-cifar":
        return _published(SwavRecipe, method, view_presets.swav(32), preset, 1000, 512, 0.6, _lars(1e-6, exempt=False))
    if preset.endswith("256"):
        by = _lars(1e-6, warmup=0, floor=1e-3, exempt=False)
        return _published(SwavRecipe, method, view_presets.swav(), preset, 200, 256, 0.6, by)
    by = _lars(1e-6, floor=1e-3, exempt=False)
    return _published(SwavRecipe, method, view_presets.swav(), preset, 400, 4096, 4.8, by)


def dino(preset: str = "tiny") -> DinoRecipe:
    """DINO at a preset (arXiv 2104.14294, section 3.2; the code's defaults): 5e-4 for 256, weight decay rising from 0.04 to 0.4.

    `rn50` is the README's run: SGD with 0.03 for 256, 100 epochs, and a border of 0.14 between the areas of large and small crops.
    """
    method = DinoConfig.preset(preset)
    if preset == "tiny":
        return _tiny(DinoRecipe, method, view_presets.dino(32, count=4))
    if preset == "rn50":
        lr = 0.03 * 512 / 256
        by = OptimiserSpec(kind="sgd", weight_decay=1e-4, warmup=10, floor=1e-6 / lr, clip=3.0)
        return _published(DinoRecipe, method, view_presets.dino(border=0.14), preset, 100, 512, lr, by)
    lr = 2e-3
    by = OptimiserSpec(
        weight_decay=0.04, weight_decay_end=0.4, betas=(0.9, 0.999), epsilon=1e-8, warmup=10, floor=1e-6 / lr, clip=3.0
    )
    return _published(DinoRecipe, method, view_presets.dino(), preset, 300, 1024, lr, by)


def instdisc(preset: str = "tiny") -> InstDiscRecipe:
    """InstDisc at a preset (arXiv 1805.01978, sections 4.1 and 4.2; the code)."""
    method = InstDiscConfig.preset(preset)
    if preset == "tiny":
        return _tiny(InstDiscRecipe, method, view_presets.instdisc_cifar(32))
    if preset.endswith("cifar"):
        by = _sgd(5e-4, steps=(120, 160))
        return _published(InstDiscRecipe, method, view_presets.instdisc_cifar(), preset, 200, 128, 0.03, by)
    by = _sgd(1e-4, steps=(120, 160))
    return _published(InstDiscRecipe, method, view_presets.instdisc(), preset, 200, 256, 0.03, by)


def invaspread(preset: str = "tiny") -> InvaSpreadRecipe:
    """InvaSpread at a preset (arXiv 1904.03436, section 4.1; the code)."""
    method = InvaSpreadConfig.preset(preset)
    if preset == "tiny":
        return _tiny(InvaSpreadRecipe, method, view_presets.simclr_cifar(32))
    by = _sgd(5e-4, steps=(120, 160))
    return _published(InvaSpreadRecipe, method, view_presets.invaspread(), preset, 200, 128, 0.03, by)
