"""What recipes on pictures alone share: views in place of words, no tokeniser, and what is measured as they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from multiway.batch import DataInfo
from multiway.data.loader import Loader
from multiway.data.tokenizer import Tokenizer
from multiway.data.views import CropSpec, ViewsSpec
from multiway.recipes.recipe import Recipe
from multiway.world import World

__all__ = ["PicturesRecipe"]


@dataclass(frozen=True)
class PicturesRecipe(Recipe):
    """Pictures, of which the method sees views; labels, where there are any, reach the probe alone.

    Attributes:
        views: what is seen of a picture in training; `view` is how it is evaluated, and its mean and deviation normalise all.
        unlabelled: keep labels from the probe too, and do without it.
    """

    over_ranks: ClassVar[bool] = True

    views: ViewsSpec = ViewsSpec((CropSpec(),))
    unlabelled: bool = False

    @property
    def drawn(self) -> ViewsSpec | None:
        """The views."""
        return self.views

    def tokeniser(self, source: Any) -> Tokenizer | None:
        """None: nothing is read."""
        return None

    def info(self, source: Any, tokenizer: Tokenizer | None) -> DataInfo:
        """How many pictures there are, and of how many classes."""
        return DataInfo(samples=len(source), classes=0 if self.unlabelled else len(source.classes))

    def loader(self, source: Any, tokenizer: Tokenizer | None, info: DataInfo, world: World) -> Any:
        """Batches of pictures, with the numbers that their views are drawn by."""
        settings = self.settings
        return Loader(
            source, self.view, None, settings.batch, settings.seed, world.rank, world.size, settings.workers,
            patches=self.patches, views=self.views, **self.loading,
        )  # fmt: skip
