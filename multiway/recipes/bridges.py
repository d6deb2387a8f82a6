"""Recipes of what bridges self-supervision and CLIP: pictures, captions, and views beside them.

multiway train slip --data emoji --out runs/a                      some minutes on two CPU cores
multiway train declip --data captions.jsonl --images pictures/ --out runs/b
torchrun --nproc-per-node 8 -m multiway train slip --preset vit-b-16 --data 'shards/{0000..0999}.tar' --out runs/c
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from multiway.batch import DataInfo, ViewSpec
from multiway.data import view_presets
from multiway.data.loader import Loader
from multiway.data.masking import Masking
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.data.views import ViewsSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.clip import image_size
from multiway.methods.declip import DeClipConfig
from multiway.methods.slip import SlipConfig
from multiway.recipes.recipe import Recipe
from multiway.world import World

__all__ = ["BridgeRecipe", "DeClipRecipe", "SlipRecipe", "declip", "slip"]

_YFCC = 15_000_000  # pairs of YFCC15M, about


@dataclass(frozen=True)
class BridgeRecipe(Recipe):
    """Pairs, of whose pictures the method sees views too.

    Attributes:
        views: what is seen of a picture besides, or instead of, what `view` says.
    """

    over_ranks: ClassVar[bool] = True

    views: ViewsSpec = view_presets.simclr_cifar(32)

    @property
    def drawn(self) -> ViewsSpec | None:
        """The views."""
        return self.views

    def loader(self, source: Any, tokenizer: Tokenizer, info: DataInfo, world: World) -> Any:
        """Batches of pairs, with the numbers that views are drawn by."""
        settings = self.settings
        return Loader(
            source, self.view, tokenizer, settings.batch, settings.seed, world.rank, world.size, settings.workers,
            self.masking, self.patches, self.views, **self.loading,
        )  # fmt: skip


@dataclass(frozen=True)
class SlipRecipe(BridgeRecipe):
    """See `methods/slip.py`."""

    name: ClassVar[str] = "slip"
    method_name: ClassVar[str] = "slip"

    method: SlipConfig = SlipConfig()


@dataclass(frozen=True)
class DeClipRecipe(BridgeRecipe):
    """See `methods/declip.py`."""

    name: ClassVar[str] = "declip"
    method_name: ClassVar[str] = "declip"

    method: DeClipConfig = DeClipConfig()


def slip(preset: str = "tiny") -> SlipRecipe:
    """SLIP at a preset; the paper's are those of the code (`main.py`): 25 epochs of YFCC15M, batch 4,096.

    Its crop of the plain picture keeps half of the area or more; `crop` here keeps 0.64 or more. Nobody here has run them.
    """
    method = SlipConfig.preset(preset)
    size = image_size(method)
    if preset == "tiny":
        return SlipRecipe(
            settings=Settings(steps=400, batch=128, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.1, warmup=0.05)),
            view=ViewSpec(size=size, crop="pad", augment="affine"),
            tokenizer=TokenizerSpec(vocabulary=2048, context=32),
            views=replace(view_presets.simclr_cifar(size), plain=True),
            method=method,
        )
    epochs, batch, lr = 25, 4096, 3e-3
    # MoCo v2's colours on SimCLR's crops.
    kind = replace(view_presets.moco_v2(size).views[0], scale=(0.08, 1.0))
    optimiser = OptimiserSpec(
        weight_decay=0.1, betas=(0.9, 0.98), epsilon=1e-8, warmup=_YFCC // batch, floor=1e-5 / lr, clip=0.0
    )
    return SlipRecipe(
        settings=Settings(
            steps=epochs * _YFCC // batch, batch=batch, lr=lr, checkpoint_every=1000, log_every=50, optimiser=optimiser
        ),
        preset=preset,
        view=ViewSpec(size, "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), augment="crop", margin=1.15),
        tokenizer=TokenizerSpec(vocabulary=method.text.vocabulary, context=method.text.context),
        views=ViewsSpec((kind, kind), plain=True),
        method=method,
    )


def declip(preset: str = "tiny") -> DeClipRecipe:
    """DeCLIP at a preset; the paper's sizes have the code's settings on YFCC15M (`yfcc15m_vit_declip/config.yaml`, 32 epochs of
    batch 4,096). Nobody here has run them.
    """
    method = DeClipConfig.preset(preset)
    size = image_size(method)
    if preset == "tiny":
        return DeClipRecipe(
            settings=Settings(steps=400, batch=128, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.1, warmup=0.05)),
            view=ViewSpec(size=size, crop="pad"),
            tokenizer=TokenizerSpec(vocabulary=2048, context=32),
            masking=Masking(ratio=0.15),
            views=view_presets.simclr_cifar(size),
            method=method,
        )
    optimiser = OptimiserSpec(weight_decay=0.1, betas=(0.9, 0.98), epsilon=1e-8, warmup=2500, clip=0.0)
    return DeClipRecipe(
        settings=Settings(steps=128_000, batch=4096, lr=1e-3, checkpoint_every=1000, log_every=50, optimiser=optimiser),
        preset=preset,
        view=ViewSpec(size, "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), margin=256 / 224),
        tokenizer=TokenizerSpec(vocabulary=method.text.vocabulary, context=method.text.context),
        masking=Masking(ratio=0.15),
        views=view_presets.moco_v2(size),
        method=method,
    )
