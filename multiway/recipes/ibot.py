"""iBOT's recipes, and DINOv2's: the bundled pictures on a laptop, and the papers' sizes.

multiway train ibot --data emoji --out runs/a                      some minutes on two CPU cores
multiway train ibot --method.koleo 0.1 --method.balance sinkhorn --out runs/b
torchrun --nproc-per-node 8 -m multiway train ibot --preset vit-s-16 --data imagenet:data/imagenet --out runs/c
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.config import ConfigError
from multiway.data import view_presets
from multiway.data.draws import uniforms
from multiway.data.loader import Loader, read_ahead
from multiway.data.patch_masking import PatchMasking, mask_patches
from multiway.data.tokenizer import Tokenizer
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.ibot import IbotConfig
from multiway.recipes.pictures import PicturesRecipe
from multiway.world import World

__all__ = ["HiddenViews", "IbotRecipe", "MaskedViewsLoader", "ibot", "mask_views"]

_IMAGENET = 1_281_167  # pictures
_DINOV2_EPOCH = 1250  # steps, whatever the data


@dataclass(frozen=True)
class HiddenViews:
    """What is hidden of the large views (arXiv 2111.07832, section 4.1, and the code's `--pred_ratio 0 0.3 --pred_ratio_var 0 0.2`).

    Attributes:
        share: of the large views, how many have hidden patches; 0 hides nothing, and iBOT is DINO.
        spread: of such a view the ratio of hidden patches is uniform in `patches.ratio` plus or minus this.
    """

    share: float = 0.5
    spread: float = 0.2

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or self.spread < 0.0:
            raise ConfigError(f"a share lies in [0, 1] and a spread is 0 or more; given {self}")


def mask_views(draws: np.ndarray, sizes: tuple[int, ...], masking: PatchMasking, hidden: HiddenViews) -> Tensor:
    """Masks of several views of each row, side by side.

    Args:
        draws: (B, sum over views of 2 + `masking.draws(size)`) in [0, 1), a function of (seed, epoch, sample): for each view whether
            it hides anything, how much, and what.
        sizes: of the views, in pixels.
        masking: shapes, and the middle ratio.
        hidden: how many views, and how far ratios differ.

    Returns:
        (B, sum over views of N) bool, True at hidden patches.
    """
    columns, first = [], 0
    for size in sizes:
        stop = first + 2 + masking.draws(size)
        own = draws[:, first:stop]
        ratios = masking.ratio + hidden.spread * (2.0 * own[:, 1] - 1.0)
        ratios = np.where(own[:, 0] < hidden.share, ratios, 0.0)
        # Row by row, since each has a ratio of its own.
        rows = [
            mask_patches(own[row : row + 1, 2:], size, replace(masking, ratio=float(ratios[row])))
            for row in range(len(own))
        ]
        columns.append(torch.cat(rows))
        first = stop
    return torch.cat(columns, 1)


class _MaskedSteps(Dataset[Batch]):
    """A loader's batches with masks of their large views: what DataLoader's workers run."""

    def __init__(
        self, loader: Loader, sizes: tuple[int, ...], masking: PatchMasking, hidden: HiddenViews, world: World
    ) -> None:
        self.loader, self.sizes, self.masking, self.hidden = loader, sizes, masking, hidden
        self.rank, self.world = world.rank, world.size

    def __getitem__(self, step: int) -> Batch:
        batch = self.loader.batch(step)
        assert batch.sample_index is not None
        epochs, _ = self.loader.order.at(step, self.rank, self.world)
        count = sum(2 + self.masking.draws(size) for size in self.sizes)
        draws = uniforms(self.loader.order.seed, epochs, batch.sample_index.numpy(), "view_masks", count)
        return replace(batch, patch_mask=mask_views(draws, self.sizes, self.masking, self.hidden))


class MaskedViewsLoader:
    """Training batches of pictures, the numbers that their views are drawn by, and what is hidden of the large ones."""

    def __init__(
        self, loader: Loader, sizes: tuple[int, ...], masking: PatchMasking, hidden: HiddenViews, world: World
    ) -> None:
        self.loader = loader
        self._steps = _MaskedSteps(loader, sizes, masking, hidden, world)

    def batch(self, step: int) -> Batch:
        """One batch, drawn here and now."""
        return self._steps[step]

    def epoch(self, step: int) -> float:
        """Passes over the data that are complete before `step`."""
        return self.loader.epoch(step)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps [start, stop), in order, read ahead by the workers."""
        return read_ahead(self._steps, start, stop, self.loader.workers)


@dataclass(frozen=True)
class IbotRecipe(PicturesRecipe):
    """See `methods/ibot.py`.

    Attributes:
        hidden: which large views have hidden patches, and how far their ratios differ; `patches` says the rest.
    """

    name: ClassVar[str] = "ibot"
    method_name: ClassVar[str] = "ibot"

    hidden: HiddenViews = HiddenViews()
    method: IbotConfig = IbotConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.patches.ratio - self.hidden.spread, self.patches.ratio + self.hidden.spread
        if self.patches.some and self.hidden.share > 0 and (low < 0.0 or high >= 1.0):
            raise ConfigError(
                f"ratios of hidden patches would lie in [{low:g}, {high:g}]; expected them in [0, 1): change --patches.ratio or "
                "--hidden.spread"
            )
        if self.patches.ratios:
            raise ConfigError("patches.ratios is of no use here, where each view draws its ratio; set patches.ratio")

    def loader(self, source: Any, tokenizer: Tokenizer | None, info: DataInfo, world: World) -> Any:
        """Batches of pictures, with the numbers that views are drawn by and masks of the large ones."""
        bare = replace(self, patches=PatchMasking(patch=self.patches.patch))
        plain = super(IbotRecipe, bare).loader(source, tokenizer, info, world)
        if not self.patches.some or self.hidden.share == 0.0:
            return plain
        sizes = tuple(kind.size for kind in self.views.views[: self.method.targets])
        return MaskedViewsLoader(plain, sizes, self.patches, self.hidden, world)


def ibot(preset: str = "tiny") -> IbotRecipe:
    """iBOT at a preset (arXiv 2111.07832, section 4.1; the command in the code's README), or DINOv2's (`configs/train/*.yaml`).

    `vit-b-16` has ViT-S's settings for half as many epochs. Of DINOv2 the layer-wise rates of the short run are left out. Nobody
    here has run the papers' sizes.
    """
    method = IbotConfig.preset(preset)
    backbone = method.backbone
    side = backbone.size // backbone.patch
    patches = PatchMasking(0.3, backbone.patch, least=(side // 3) ** 2)
    if preset == "tiny":
        return IbotRecipe(
            settings=Settings(steps=400, batch=128, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.1)),
            view=ViewSpec(size=backbone.size, crop="pad"),
            views=view_presets.dino(backbone.size, None, 2),
            patches=patches,
            method=method,
        )
    second = preset.startswith("dinov2")
    epochs, batch, base = {
        "vit-s-16": (800, 1024, 2e-3),
        "vit-b-16": (400, 1024, 2e-3),
        "dinov2-vit-l-16": (100, 2048, 4e-3 * 2**0.5),
        "dinov2-vit-l-14": (500, 3072, 2e-4 * 3**0.5),
    }[preset]
    each = _DINOV2_EPOCH if second else _IMAGENET // batch
    by = OptimiserSpec(
        weight_decay=0.04, weight_decay_end=0.2 if preset == "dinov2-vit-l-14" else 0.4, betas=(0.9, 0.999), epsilon=1e-8,
        warmup=(80 if preset == "dinov2-vit-l-14" else 10) * each, floor=1e-6 / base, clip=3.0,
        rules=((r"^backbone\.patches", 0.2),) if second else (),
    )  # fmt: skip
    return IbotRecipe(
        settings=Settings(steps=epochs * each, batch=batch, lr=base, checkpoint_every=1000, log_every=50, optimiser=by),
        preset=preset,
        data="imagenet:data/imagenet",
        view=ViewSpec(size=224, crop="center", margin=256 / 224),
        views=view_presets.dino(224, 98 if backbone.patch == 14 else 96, 8 if second else 10, 0.32 if second else 0.25),
        patches=patches,
        method=method,
    )
