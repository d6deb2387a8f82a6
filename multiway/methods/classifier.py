"""Fine-tuned classification: a trained method, and a linear head on what it makes of a picture alone. Itself a method.

The picture's embedding, or the mean of its last tokens (He et al., MAE, 2021, arXiv 2111.06377, appendix A.1, call it global
average pooling), is normalised (LayerNorm without scale and shift) and goes through one linear layer; all of it is trained by
cross entropy, lower blocks at lower rates if `layer_decay` is below 1. Any method with `encode_image` will do. With the rates of
everything but the head at 0 (`--optimiser.rules '^base' 0`) this is the linear probe that learns by steps; `tasks/probe.py` is
the one that is solved.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import ABILITIES, Encoded, abilities_of
from multiway.batch import Batch, DataInfo
from multiway.losses.classification import classification
from multiway.methods import method_class
from multiway.methods.finetune import picture_size
from multiway.methods.layer_decay import layer_rates
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.nn.pool import masked_mean
from multiway.nn.transformer import init_weights
from multiway.world import World

__all__ = ["ClassifierConfig", "PictureClassifier"]

_ANY_SIZE = 32  # side of the blank picture for methods that read any


@dataclass(frozen=True)
class ClassifierConfig:
    """What is tuned, for which classes.

    Attributes:
        method: name of the method underneath; filled in from the run that is tuned, as is
        of: its config, as JSON.
        classes: their names; filled in from the data.
        features: the vector of a picture: `embedding`, `pooled` (the mean of its last tokens), or `auto`: the first of them
            that the method has.
        smoothing: of labels (`losses/classification.py`).
        head_rate: learning rate of the head, which begins at random, over that of the method underneath.
        layer_decay: factor of the learning rate from each block to the one below it (`methods/layer_decay.py`).
    """

    method: str = ""
    of: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    features: Literal["auto", "embedding", "pooled"] = "auto"
    smoothing: float = 0.0
    head_rate: float = 3.0
    layer_decay: float = 1.0

    def resolve(self, data: DataInfo) -> ClassifierConfig:
        """The config with the data's classes, if none were given."""
        return replace(self, classes=self.classes or data.answers)


class PictureClassifier(Method):
    """A method with a linear head on pictures."""

    name = "classify"
    config_class = ClassifierConfig
    config: ClassifierConfig
    rests: ClassVar[bool] = True  # texts are not read, and the method's own heads learn nothing here

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        if not config.method:
            raise ValueError("there is nothing to be tuned; name a run: --init RUN")
        if len(config.classes) < 2:
            raise ValueError(f"{len(config.classes)} classes leave nothing to choose; expected at least 2")
        self.config = config
        self.base = method_class(config.method).from_config_json(config.of)
        if "encode_image" not in abilities_of(self.base):
            raise ValueError(f"{config.method} reads no pictures, which are classified; tune a run that does")
        self.head = nn.Linear(self._width(), len(config.classes))
        init_weights(self.head)

    # What it can be asked.

    def abilities(self) -> tuple[str, ...]:
        """Those of the method underneath, and the new one."""
        return (*abilities_of(self.base), "classify")

    def __getattr__(self, name: str) -> Any:
        """What the method underneath can do, it still can: retrieval is measured before and after."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ABILITIES and "base" in self.__dict__.get("_modules", {}):
                return getattr(self.base, name)
            raise

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.config.classes

    @property
    def starting(self) -> Method:
        """The part that begins from a trained run."""
        return self.base

    def started(self) -> None:
        """The method underneath began from other weights."""
        self.base.started()

    def classify(self, image: Encoded) -> Tensor:
        """(B, K) scores of each class for pictures as `encode_image` gave them, tokens kept."""
        vector = self._vector(image)
        return self.head(F.layer_norm(vector, vector.shape[1:]))  # type: ignore[no-any-return]

    def _vector(self, image: Encoded) -> Tensor:
        if self.config.features != "pooled" and image.has_embedding:
            return image.embedding
        if self.config.features == "embedding":
            raise ValueError(f"{self.config.method} has no embedding of a picture; take --method.features pooled")
        if image.tokens is None:
            raise ValueError("the head reads the mean of a picture's tokens; encode with tokens=True")
        return masked_mean(image.tokens, image.mask)

    @torch.no_grad()
    def _width(self) -> int:
        """Of the vector, whatever the method calls it: read off a blank picture."""
        training = self.base.training
        self.base.eval()  # a blank picture must leave no trace in running statistics
        side = picture_size(self.base.config) or _ANY_SIZE
        width = self._vector(self.base.encode_image(torch.zeros(1, 3, side, side))).shape[1]  # type: ignore[operator]
        self.base.train(training)
        return int(width)

    def learning_rates(self) -> list[tuple[str, float]]:
        """The head's own rate, and less for lower blocks where that is asked for."""
        rates = [(r"^head\.", self.config.head_rate)]
        if self.config.layer_decay != 1.0:
            rates += layer_rates(self.base, self.config.layer_decay, "base.")
        return rates

    # The training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Scores of every picture."""
        assert batch.images is not None
        return {"logits": self.classify(self.base.encode_image(batch.images))}  # type: ignore[operator]

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Cross entropy over the rows that have a label."""
        assert batch.labels is not None
        found = classification(reps["logits"], batch.labels, self.config.smoothing)
        term = Term(found.loss, chance=found.chance, formula=found.formula)
        return Losses({"classify": term}, report={"accuracy": found.accuracy})
