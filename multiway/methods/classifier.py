"""Fine-tuned classification: a trained method, and a linear head on what it makes of a picture alone. Itself a method.

The picture's embedding, or the mean of its last tokens (He et al., MAE, 2021, arXiv 2111.06377, appendix A.1, call it global
average pooling), is normalised (LayerNorm without scale and shift) and goes through one linear layer; all of it is trained by
cross entropy, lower blocks at lower rates if `layer_decay` is below 1. Any method with `encode_image` will do. With all but the head
frozen (`freeze=("base",)`) this is the linear probe that learns by steps; `tasks/probe.py` is the one that is solved.

A method with a projector may also be tuned from inside it, as SimCLR v2 is (`methods/projector_layers.py`); there nothing is
normalised between that layer and the head. What learns, all or less: `methods/kept.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded, abilities_of
from multiway.batch import Batch, DataInfo
from multiway.config import LATER
from multiway.losses.classification import classification
from multiway.methods import method_class
from multiway.methods.finetune import picture_size
from multiway.methods.finetune_config import check_tuning
from multiway.methods.method import Losses, Pairs, Reps, Step, Term
from multiway.methods.on_another import Tuned
from multiway.methods.projector_layers import first_projection
from multiway.nn.pool import masked_mean
from multiway.nn.transformer import init_weights
from multiway.world import World

__all__ = ["ClassifierConfig", "LabelInfo", "PictureClassifier"]

_ANY_SIZE = 224  # side of the blank picture for methods that read any


@dataclass(frozen=True)
class LabelInfo(DataInfo):
    """What a classifier must know of labelled data.

    Attributes:
        counts: rows of each class; empty where nobody counted.
    """

    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class ClassifierConfig:
    """What is tuned, for which classes.

    Attributes:
        method: name of the method underneath; filled in from the run that is tuned, as is
        of: its config, as JSON.
        classes: their names; filled in from the data.
        features: the vector of a picture: `embedding`, `pooled` (the mean of its last tokens), or `auto`: the first of them
            that the method has; or `projected`, the first layer of its projector.
        smoothing: of labels (`losses/classification.py`).
        head_rate: learning rate of the head, which begins at random, over that of the method underneath.
        layer_decay: factor of the learning rate from each block to the one below it (`methods/layer_decay.py`).
        freeze, lora, lora_rank, lora_alpha: how much of the method stays as it is, as of `FineTuneConfig`.
        frequencies: how many pictures of each class are learnt from, for the chance value; filled in from the data.

    Raises:
        ConfigError: for rates and ranks that teach nothing, and changes to what is frozen.
    """

    method: str = ""
    of: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    features: Literal["auto", "embedding", "pooled", "projected"] = "auto"
    smoothing: float = 0.0
    head_rate: float = 3.0
    layer_decay: float = 1.0
    freeze: tuple[str, ...] = field(default=(), metadata=LATER)
    lora: str = field(default="", metadata=LATER)
    lora_rank: int = field(default=8, metadata=LATER)
    lora_alpha: float = field(default=0.0, metadata=LATER)
    frequencies: tuple[int, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        check_tuning(self)

    def resolve(self, data: DataInfo) -> ClassifierConfig:
        """The config with the data's classes and how frequent they are, if none were given."""
        counts = data.counts if isinstance(data, LabelInfo) else ()
        return replace(self, classes=self.classes or data.answers, frequencies=self.frequencies or counts)


class PictureClassifier(Tuned):
    """A method with a linear head on pictures."""

    name = "classify"
    config_class = ClassifierConfig
    config: ClassifierConfig

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
        self.tune(config)

    # What it can be asked.

    def abilities(self) -> tuple[str, ...]:
        """Those of the method underneath, and the new one."""
        return (*abilities_of(self.base), "classify")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.config.classes

    def classify(self, image: Encoded) -> Tensor:
        """(B, K) scores of each class for pictures as `encode_image` gave them, tokens kept."""
        vector = self._vector(image)
        if self.config.features == "projected":
            return self.head(vector)  # type: ignore[no-any-return]
        return self.head(F.layer_norm(vector, vector.shape[1:]))  # type: ignore[no-any-return]

    def _vector(self, image: Encoded) -> Tensor:
        if self.config.features == "projected":
            return first_projection(self.base, image)
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

    # The training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Scores of every picture."""
        assert batch.images is not None
        return {"logits": self.classify(self.base.encode_image(batch.images))}  # type: ignore[operator]

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Cross entropy over the rows that have a label."""
        assert batch.labels is not None
        found = classification(reps["logits"], batch.labels, self.config.smoothing, self.config.frequencies or None)
        term = Term(found.loss, chance=found.chance, formula=found.formula)
        return Losses({"classify": term}, report={"accuracy": found.accuracy})
