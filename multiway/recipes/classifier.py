"""Fine-tuning a trained run to classify pictures.

multiway finetune runs/clip --task classification --data digits --out runs/clip-digits
multiway finetune runs/clip --task classification --data pictures/ --method.layer-decay 0.75 --evaluate classification=@val
multiway finetune hf:clip-folder --task classification --data imagenet:data/imagenet --evaluate classification=@val --lr 3e-5
multiway finetune runs/simclr --task classification --labels 0.1 --method.features projected --out runs/a-tenth
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from multiway.batch import DataInfo
from multiway.config import LATER, ConfigError, to_json
from multiway.data.few_labels import FewLabels
from multiway.data.loader import Loader
from multiway.data.source import DataError
from multiway.data.tokenizer import Tokenizer
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.hub.load import load
from multiway.methods.classifier import ClassifierConfig, LabelInfo, PictureClassifier
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
        labels: which labels of the training split are learnt from: a share (`0.01`), or a file that lists pictures
            (`data/few_labels.py`); empty for all. A batch may be larger than what is left: rows then come again.
        labels_seed: of the choice of a share, whatever `seed` the run has.

    Raises:
        DataError: for a number that is no share.
    """

    name: ClassVar[str] = "classify"
    method_name: ClassVar[str] = "classify"

    task: Literal["classification"] = "classification"
    labels: str = field(default="", metadata=LATER)
    labels_seed: int = field(default=0, metadata=LATER)
    method: ClassifierConfig = ClassifierConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._few  # noqa: B018 - a number that is no share is refused now

    @property
    def _few(self) -> FewLabels:
        return FewLabels(self.labels, self.labels_seed)

    def open(self, spec: str, split: str) -> Any:
        """The data; of what is learnt from, also by a probe that is measured in training, the rows whose labels are seen."""
        source = super().open(spec, split)
        return self._few.seen(source) if split == "train" else source

    def tokeniser(self, source: Any) -> Tokenizer | None:
        """None: nothing is read, and a run without a tokeniser has no use for one."""
        return None

    def info(self, source: Any, tokenizer: Tokenizer | None) -> LabelInfo:
        """The names of the classes, and how many rows each has.

        Raises:
            DataError: if the data have fewer than two.
        """
        if len(source.classes) < 2:
            raise DataError(
                f"{source.name}@{source.split} has {len(source.classes)} classes, and there is nothing to tell apart; use "
                "labelled data: a folder with a sub-folder per class, a caption file with a `label` column, imagenet:FOLDER, "
                "emoji or digits"
            )
        labels = [source.row(number).label for number in range(len(source))]
        known = Counter(label for label in labels if 0 <= label < len(source.classes))
        counts = tuple(known[label] for label in range(len(source.classes))) if known else ()
        return LabelInfo(
            vocabulary=len(tokenizer) if tokenizer else 0,
            context=tokenizer.context if tokenizer else 0,
            samples=len(source),
            special=tokenizer.special if tokenizer else {},
            answers=tuple(source.classes),
            counts=counts,
        )

    def loader(self, source: Any, tokenizer: Tokenizer | None, info: DataInfo, world: World) -> Loader:
        """Batches of pictures and labels, without a text."""
        settings = self.settings
        return Loader(
            source, self.view, None, settings.batch, settings.seed, world.rank, world.size, settings.workers,
            **self.loading,
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
        evaluate=("classification=@held-out",),
        best="accuracy/top-1",
    )
