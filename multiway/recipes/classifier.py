"""Fine-tuning a trained run to classify pictures.

multiway finetune runs/clip --task classification --data digits --out runs/clip-digits
multiway finetune runs/clip --task classification --data pictures/ --method.layer-decay 0.75 --evaluate classification=@val
multiway finetune hf:clip-folder --task classification --data imagenet:data/imagenet --evaluate classification=@val --lr 3e-5
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from multiway.batch import DataInfo
from multiway.config import ConfigError, to_json
from multiway.data.loader import Loader
from multiway.data.source import DataError
from multiway.data.tokenizer import Tokenizer
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.hub.load import load
from multiway.methods.classifier import ClassifierConfig, PictureClassifier
from multiway.methods.method import Method
from multiway.recipes.finetune import at_size
from multiway.recipes.recipe import Recipe
from multiway.world import World

__all__ = ["ClassifyRecipe", "classify"]


@dataclass(frozen=True)
class ClassifyRecipe(Recipe):
    """A trained run, a linear head on its pictures, and labelled data.

    Attributes:
        task: what it is tuned for.
    """

    name: ClassVar[str] = "classify"
    method_name: ClassVar[str] = "classify"

    task: Literal["classification"] = "classification"
    method: ClassifierConfig = ClassifierConfig()

    def info(self, source: Any, tokenizer: Tokenizer) -> DataInfo:
        """The names of the classes.

        Raises:
            DataError: if the data have fewer than two.
        """
        if len(source.classes) < 2:
            raise DataError(
                f"{source.name}@{source.split} has {len(source.classes)} classes, and there is nothing to tell apart; use "
                "labelled data: a folder with a sub-folder per class, a caption file with a `label` column, imagenet:FOLDER, "
                "emoji or digits"
            )
        return replace(super().info(source, tokenizer), answers=tuple(source.classes))

    def loader(self, source: Any, tokenizer: Tokenizer, info: DataInfo, world: World) -> Loader:
        """Batches of pictures and labels, without a text."""
        settings = self.settings
        return Loader(
            source, self.view, None, settings.batch, settings.seed, world.rank, world.size, settings.workers
        )  # fmt: skip

    def build(self, info: DataInfo) -> Method:
        """The run's method at this recipe's picture size, and a new head on it.

        Raises:
            ConfigError: if no run is named, or the method cannot be tuned so.
        """
        if not self.init:
            raise ConfigError("there is nothing to be tuned; name a run: multiway finetune RUN --task classification")
        under = load(self.init).method.starting
        config = at_size(under.config, self.view.size)
        try:
            return PictureClassifier(replace(self.method, method=under.name, of=to_json(config)).resolve(info))
        except ValueError as error:
            raise ConfigError(f"{self.init}: {error}") from error


def classify(run: str) -> ClassifyRecipe:
    """Fine-tuning of a run for classes: pictures drawn as the run drew them, of digits unless other data are named.

    A few hundred steps at a third of a small recipe's rate; published models are tuned at 1e-5 to 1e-4 (`--lr`), with a layer
    decay of 0.65 to 0.75 (MAE, table 9; BEiT, appendix H).
    """
    model = load(run)
    return ClassifyRecipe(
        settings=Settings(steps=400, batch=64, lr=3e-4, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.1)),
        data="digits",
        init=run,
        view=replace(model.processor.view, augment="none"),
        evaluate=("classification=@test",),
        best="accuracy/top-1",
    )
