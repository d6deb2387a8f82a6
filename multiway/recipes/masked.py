"""Recipes of masked image modelling on pictures alone: bundled pictures on a laptop, and the papers' sizes.

multiway train mae --data emoji --out runs/a                       a few minutes on two CPU cores
multiway train mae --data digits --patches.ratio 0.5 --out runs/b
multiway train beit --codes runs/codes --out runs/c                codes of `multiway train vqkd`
torchrun --nproc-per-node 8 -m multiway train mae --preset vit-b-16 --data imagenet:data/imagenet --out runs/d

Published sizes have the settings of the released code, looked up there, where a file is named; nobody here has run them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from multiway.batch import DataInfo, ViewSpec
from multiway.data import view_presets
from multiway.data.patch_masking import PatchMasking
from multiway.data.views import CropSpec, ViewsSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.beit import Beit, BeitConfig
from multiway.methods.denoising import DenoisingConfig
from multiway.methods.mae import MaeConfig
from multiway.methods.maskfeat import MaskFeatConfig
from multiway.methods.method import Method
from multiway.methods.simmim import SimMimConfig
from multiway.nn.mae_decoder import MaeDecoderConfig
from multiway.nn.swin import SwinConfig
from multiway.nn.vit import VisionConfig
from multiway.recipes.lent import visual_tokeniser
from multiway.recipes.pictures import PicturesRecipe
from multiway.recipes.world import WORLD, white_is_zero

__all__ = ["beit", "denoising", "mae", "maskfeat", "simmim"]

_IMAGENET = 1_281_167  # pictures
_CIFAR = 50_000


@dataclass(frozen=True)
class MaeRecipe(PicturesRecipe):
    """See `methods/mae.py`."""

    name: ClassVar[str] = "mae"
    method_name: ClassVar[str] = "mae"

    method: MaeConfig = MaeConfig()


@dataclass(frozen=True)
class SimMimRecipe(PicturesRecipe):
    """See `methods/simmim.py`."""

    name: ClassVar[str] = "simmim"
    method_name: ClassVar[str] = "simmim"

    method: SimMimConfig = SimMimConfig()


@dataclass(frozen=True)
class MaskFeatRecipe(PicturesRecipe):
    """See `methods/maskfeat.py`."""

    name: ClassVar[str] = "maskfeat"
    method_name: ClassVar[str] = "maskfeat"

    method: MaskFeatConfig = MaskFeatConfig()


@dataclass(frozen=True)
class DenoisingRecipe(PicturesRecipe):
    """See `methods/denoising.py`."""

    name: ClassVar[str] = "denoising-autoencoder"
    method_name: ClassVar[str] = "denoising-autoencoder"

    method: DenoisingConfig = DenoisingConfig()


@dataclass(frozen=True)
class BeitRecipe(PicturesRecipe):
    """See `methods/beit.py`.

    Attributes:
        codes: run of `vqkd` whose codes masked patches are guessed as.
    """

    name: ClassVar[str] = "beit"
    method_name: ClassVar[str] = "beit"

    codes: str = ""
    method: BeitConfig = BeitConfig()

    def lenders(self) -> tuple[str, ...]:
        """The image tokeniser's run."""
        return (self.codes,) if self.codes else ()

    def build(self, info: DataInfo) -> Method:
        """The method with the image tokeniser's tensors in it."""
        tokeniser = visual_tokeniser(self.codes, "--codes", self.view)
        method = Beit(replace(self.method, tokeniser=tokeniser.config).resolve(info))
        method.tokeniser.load_state_dict(tokeniser.state_dict())
        return method


def _tiny(size: int, **more: Any) -> dict[str, Any]:
    """A few minutes on a laptop. `--evaluate knn=@random` measures besides what the probe shows."""
    settings = Settings(steps=400, batch=128, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.1))
    return {"settings": settings, "view": ViewSpec(size=size, crop="pad"), "views": view_presets.mae(size)} | more


def _large(
    preset: str, kind: CropSpec, batch: int, epochs: int, warmup: int, lr: float, **optimiser: Any
) -> dict[str, Any]:
    """A published size: ImageNet, its mean and deviation, AdamW with a weight decay of 0.05."""
    spec = OptimiserSpec(**({"weight_decay": 0.05, "epsilon": 1e-8, "warmup": warmup / epochs} | optimiser))
    settings = Settings(
        steps=epochs * _IMAGENET // batch, batch=batch, lr=lr, checkpoint_every=1000, log_every=50, optimiser=spec
    )
    view = ViewSpec(kind.size, "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), margin=1.5)
    return {
        "preset": preset,
        "data": "imagenet:data/imagenet",
        "settings": settings,
        "view": view,
        "views": ViewsSpec((kind,)),
    }


def mae(preset: str = "tiny") -> MaeRecipe:
    """MAE at a preset (appendix A.1; `main_pretrain.py`, PRETRAIN.md): 800 epochs, 1.5e-4 for every 256 rows, no clipping.

    `vit-t-2-cifar` is for CIFAR-10, with the settings of github.com/IcarusWizard/MAE.
    """
    if preset == "vit-t-2-cifar":
        return _mae_cifar(preset)
    try:
        method = MaeConfig.preset(preset)
    except KeyError as error:
        raise KeyError(f"{error.args[0]}, vit-t-2-cifar") from None
    patches = PatchMasking(0.75, method.backbone.patch, sampling="random")
    if preset == "tiny":
        return MaeRecipe(**_tiny(method.backbone.size), patches=patches, method=method)
    kind = view_presets.mae(method.backbone.size).views[0]
    fields = _large(preset, kind, 4096, 800, 40, 1.5e-4 * 4096 / 256, betas=(0.9, 0.95), clip=0.0)
    return MaeRecipe(**fields, patches=patches, method=method)


def _mae_cifar(preset: str) -> MaeRecipe:
    """A ViT-Ti on patches of 2 pixels, pixels as they are, no augmentation: 2,000 epochs of 4,096 rows, 200 of them of warm-up.

    There the cosine begins before the warm-up ends. Nobody here has run it.
    """
    epochs, batch = 2000, 4096
    own = VisionConfig(size=32, patch=2, width=192, layers=12, heads=3)
    method = MaeConfig(own, decoder=MaeDecoderConfig(192, 4, 3, positions="learned"), normalised=False)
    by = OptimiserSpec(weight_decay=0.05, betas=(0.9, 0.95), epsilon=1e-8, warmup=200 / epochs, clip=0.0, exempt=False)
    settings = Settings(
        steps=epochs * _CIFAR // batch, batch=batch, lr=1.5e-4 * batch / 256, checkpoint_every=1000, log_every=50,
        optimiser=by,
    )  # fmt: skip
    return MaeRecipe(
        settings=settings,
        preset=preset,
        data="cifar10:data/cifar10",
        view=ViewSpec(own.size, "center", (0.5,) * 3, (0.5,) * 3),
        views=view_presets.identity(own.size),
        patches=PatchMasking(0.75, own.patch, sampling="random"),
        method=method,
    )


def simmim(preset: str = "tiny") -> SimMimRecipe:
    """SimMIM at a preset (`simmim_pretrain__vit_base__img224__800ep.yaml`, `simmim_pretrain__swin_base__img192_window6__800ep.yaml`): 1e-4 for every 512 rows, a tenth of it from epoch 700 on."""
    method = SimMimConfig.preset(preset)
    own = method.backbone
    # A square of 32 pixels is two patches wide at 16, and so it is in `tiny`; of a Swin it is what one of its last tokens stands for.
    side, unit = (own.stride, own.stride) if isinstance(own, SwinConfig) else (own.patch, 2 * own.patch)
    size, patches = own.size, PatchMasking(0.6, side, sampling="random", unit=unit)
    if preset == "tiny":
        return SimMimRecipe(**_tiny(size), patches=patches, method=method)
    kind = CropSpec(size, scale=(0.67, 1.0), flip=0.5)
    fields = _large(preset, kind, 2048, 800, 10, 1e-4 * 2048 / 512, betas=(0.9, 0.999), clip=5.0, decay="steps",
                    steps=(700 / 800,), factor=0.1)  # fmt: skip
    return SimMimRecipe(**fields, patches=patches, method=method)


def maskfeat(preset: str = "tiny") -> MaskFeatRecipe:
    """MaskFeat at a preset (SlowFast's `in1k_VIT_B_MaskFeat_PT.yaml`): 300 epochs of 256 rows, gradients clipped at 0.02."""
    method = MaskFeatConfig.preset(preset)
    size, patch = method.backbone.size, method.backbone.patch
    if preset == "tiny":
        return MaskFeatRecipe(**_tiny(size), patches=PatchMasking(0.4, patch, least=4), method=method)
    kind = CropSpec(size, scale=(0.5, 1.0), flip=0.5)
    fields = _large(preset, kind, 256, 300, 30, 2e-4, betas=(0.9, 0.999), clip=0.02, floor=1e-6 / 2e-4)
    return MaskFeatRecipe(**fields, patches=PatchMasking(0.4, patch), method=method)


def denoising(preset: str = "tiny") -> DenoisingRecipe:
    """The denoising autoencoder: a quarter of the pixels blank, one of the paper's shares (section 4: 0, 10, 25, 40 %)."""
    method = DenoisingConfig.preset(preset)
    patches = PatchMasking(0.25, method.square, sampling="random")
    if preset == "tiny":
        return DenoisingRecipe(**_tiny(method.backbone.size), patches=patches, method=method)
    kind = view_presets.mae(method.backbone.size).views[0]
    fields = _large(preset, kind, 4096, 800, 40, 1.5e-4 * 4096 / 256, betas=(0.9, 0.95), clip=0.0)
    return DenoisingRecipe(**fields, patches=patches, method=method)


def beit(preset: str = "tiny") -> BeitRecipe:
    """BEiT v2 at a preset (`beit2/PRETRAINING.md`): 1,600 epochs, 75 of 196 patches hidden.

    `tiny`: scenes as they are, seen as the `tiny` image tokeniser of `multiway train vqkd` sees them.
    """
    method = BeitConfig.preset(preset)
    size, patch = method.backbone.size, method.backbone.patch
    if preset == "tiny":
        settings = Settings(steps=400, batch=64, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.05))
        own = _tiny(size, settings=settings, data=WORLD, view=white_is_zero(size), views=view_presets.identity(size))
        return BeitRecipe(**own, patches=PatchMasking(0.4, patch, least=4), method=method)
    kind = CropSpec(
        size, (0.2, 1.0), resample="bicubic", flip=0.5, jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.4
    )
    fields = _large(preset, kind, 2048, 1600, 10, 1.5e-3, betas=(0.9, 0.999), clip=3.0, floor=1e-5 / 1.5e-3)
    return BeitRecipe(**fields, patches=PatchMasking(75 / 196, patch), method=method)
