"""What recipes of two towers share: ways to learn from pairs at less cost, of which less is read in training.

FLIP (Y. Li et al., 2023, arXiv 2212.00794) leaves patches out of pictures; CLIPA (X. Li et al., 2023, arXiv 2305.07017) shrinks
pictures (`view.size`) and shortens captions (`tokenizer.context`). Evaluation sees whole pictures, and the beginning of captions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from multiway.batch import DataInfo
from multiway.config import LATER, ConfigError
from multiway.data.loader import Loader
from multiway.data.patch_masking import PatchMasking
from multiway.data.shorten import Shorten, Shortening
from multiway.data.tokenizer import Tokenizer
from multiway.nn.vit import VisionConfig
from multiway.recipes.recipe import Recipe
from multiway.world import World

__all__ = ["PairsRecipe"]


@dataclass(frozen=True)
class PairsRecipe(Recipe):
    """Pairs of picture and caption, each read by a tower of its own.

    Attributes:
        drop: share of each picture's patches that is left out in training, other ones every epoch (FLIP: 0.5 or 0.75).
        shorten: what is read in training of a caption longer than `tokenizer.context`: the `first` tokens, some at `random`, or a
            `block` of neighbours.
    """

    drop: float = field(default=0.0, metadata=LATER)
    shorten: Shorten = field(default="first", metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop < 1:
            raise ConfigError(f"drop is {self.drop:g}; expected the share of patches that is left out, in [0, 1)")
        if not self.drop:
            return
        if self.patches.some:
            raise ConfigError(
                f"drop {self.drop:g} and patches.ratio {self.patches.ratio:g} both hide patches; give one"
            )
        image = getattr(self.method, "image", None)
        if not isinstance(image, VisionConfig) or image.relative != "none":
            raise ConfigError(
                f"drop is {self.drop:g}, and patches are left out of a ViT without relative positions alone; given {image}: "
                "choose another network, or --drop 0"
            )

    @property
    def hidden_patches(self) -> PatchMasking:
        """The patches that training batches hide."""
        return PatchMasking(self.drop, self.method.image.patch, sampling="random") if self.drop else self.patches

    def loader(self, source: Any, tokenizer: Tokenizer, info: DataInfo, world: World) -> Any:
        """Training batches."""
        settings = self.settings
        return Loader(
            source, self.view, tokenizer, settings.batch, settings.seed, world.rank, world.size, settings.workers,
            self.masking, self.hidden_patches,
            shortening=None if self.shorten == "first" else Shortening(tokenizer, self.shorten), **self.loading,
        )  # fmt: skip
