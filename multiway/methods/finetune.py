"""Fine-tuning: a trained method, a head on the pairs that it reads, and the head's loss. Itself a method.

As the field does it (UNITER, ViLT, ALBEF, VLMo, BEiT-3, ...): the vector that a method makes of a picture and a text (ability
`fuse`) goes through a small classifier, and all of it is trained on the task's examples.

    asked     questions: a score for each of a list of answers, each of which is more or less right (Teney et al., 2018)
    judged    sentences about one picture, or two: a score for each verdict
    chosen    several texts with one picture: a score for each; softmax over them (VCR: question and answer as one text)
    pointed   regions of the picture: a score for each, sigmoid (MAttNet, UNITER: a region that overlaps by half is right)

Two pictures (NLVR2) are read as Chen et al., UNITER, 2020, arXiv 1909.11740, table 5, compares: `pair`, each with the text, the
two vectors side by side; `triplet`, the tokens of both in one sequence with the text; `pair-attention`, as `pair`, and then
the tokens of each reading attend to those of the other.

A dual encoder reads nothing together. Its adapter is what can be made of two vectors, [v, t, v * t, |v - t|]: a head over both
embeddings (Conneau et al., 2017, arXiv 1705.02364, section 3.1, for sentences).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from multiway.abilities import ABILITIES, Encoded, Fused, abilities_of
from multiway.batch import Batch, DataInfo
from multiway.losses.classification import classification
from multiway.losses.soft_answers import soft_answers
from multiway.methods import method_class
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.nn.attention import Attention, Visibility
from multiway.nn.task_heads import Classifier, RegionScorer
from multiway.world import World

__all__ = ["FineTune", "FineTuneConfig", "Two"]

Two = Literal["pair", "triplet", "pair-attention"]

# What a model that was tuned for a kind of examples is able to do.
_ABLE = {"asked": "answer", "judged": "judge", "chosen": "choose", "pointed": "point"}


@dataclass(frozen=True)
class FineTuneConfig:
    """What is tuned, for what.

    Attributes:
        method: name of the method underneath; filled in from the run that is tuned, as is
        of: its config, as JSON.
        kind: of examples.
        answers: that are chosen among, or names of verdicts; filled in from the data.
        pictures: that each example is about.
        two: how two are read.
        blind: whether the picture is hidden: the baseline that has the words alone.
        head_rate: learning rate of the head, which begins at random, over that of the method underneath.
        layer_decay: factor of the learning rate from each block to the one below it (Clark et al., ELECTRA, 2020, arXiv
            2003.10555, appendix B; BEiT); 1 trains all alike. Each tower counts its own blocks.
    """

    method: str = ""
    of: dict[str, Any] = field(default_factory=dict)
    kind: Literal["asked", "judged", "chosen", "pointed"] = "asked"
    answers: tuple[str, ...] = ()
    pictures: int = 1
    two: Two = "pair"
    blind: bool = False
    head_rate: float = 3.0
    layer_decay: float = 1.0

    def resolve(self, data: DataInfo) -> FineTuneConfig:
        """The config with the data's answers, if none were given."""
        return replace(self, answers=self.answers or data.answers)


class FineTune(Method):
    """A method with a task's head."""

    name = "finetune"
    config_class = FineTuneConfig
    config: FineTuneConfig
    rests: ClassVar[bool] = True  # the method's own heads and twins learn nothing here

    def __init__(self, config: FineTuneConfig) -> None:
        super().__init__()
        if not config.method:
            raise ValueError("there is nothing to be tuned; name a run: --init RUN")
        if config.kind in ("asked", "judged") and len(config.answers) < 2:
            raise ValueError(f"{len(config.answers)} answers leave nothing to choose; expected at least 2")
        if config.pictures > 1 and config.kind != "judged":
            raise ValueError(f"{config.kind} examples are about one picture; given pictures={config.pictures}")
        self.config = config
        self.base = method_class(config.method).from_config_json(config.of)
        width = self._fused_width()
        wide = width * config.pictures if config.two != "triplet" else width
        self.attend: nn.Module = nn.Identity()
        if config.pictures > 1 and config.two == "pair-attention":
            self.attend = _Mutual(width)
            wide *= 2
        self.head: nn.Module
        if config.kind == "pointed":
            self.head = RegionScorer(width, self._picture_width())
        else:
            # Of many answers nearly all are wrong: beginning at a half would first have to be unlearnt.
            prior = -math.log(len(config.answers)) if config.kind == "asked" else 0.0
            self.head = Classifier(wide, len(config.answers) if config.kind in ("asked", "judged") else 1, prior=prior)

    # What it can be asked.

    def abilities(self) -> tuple[str, ...]:
        """Those of the method underneath, and the new one."""
        return (*abilities_of(self.base), _ABLE[self.config.kind])

    def __getattr__(self, name: str) -> Any:
        """What the method underneath can do, it still can: retrieval is measured before and after."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ABILITIES and "base" in self.__dict__.get("_modules", {}):
                return getattr(self.base, name)
            raise

    @property
    def answers(self) -> tuple[str, ...]:
        """The list of answers."""
        return self.config.answers

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Names of the verdicts."""
        return self.config.answers

    @property
    def starting(self) -> Method:
        """The part that begins from a trained run."""
        return self.base

    def started(self) -> None:
        """The method underneath began from other weights."""
        self.base.started()

    def encode_image(self, images: Tensor) -> Encoded:
        """As the method underneath reads them; a blind one reads one white picture in place of each."""
        return self.base.encode_image(torch.zeros_like(images) if self.config.blind else images)  # type: ignore[operator, no-any-return]

    def answer(self, image: Encoded, text: Encoded) -> Tensor:
        """(B, A) scores of each answer."""
        return self.head(self._pooled(image, text))  # type: ignore[no-any-return]

    def choose(self, image: Encoded, text: Encoded) -> Tensor:
        """(B,) score of each text with its picture."""
        return self.head(self._pooled(image, text))[:, 0]  # type: ignore[no-any-return]

    def judge(self, images: tuple[Encoded, ...], text: Encoded) -> Tensor:
        """(B, K) scores of each verdict.

        Raises:
            ValueError: for another number of pictures than it was tuned with.
        """
        if len(images) != self.config.pictures:
            raise ValueError(
                f"{len(images)} pictures for each sentence; this model was tuned with {self.config.pictures}"
            )
        if len(images) == 1:
            return self.head(self._pooled(images[0], text))  # type: ignore[no-any-return]
        if self.config.two == "triplet":
            return self.head(self._pooled(_in_one(images), text))  # type: ignore[no-any-return]
        read = [self._fuse(image, text, tokens=self.config.two == "pair-attention") for image in images]
        vectors = [each.pooled for each in read]
        if isinstance(self.attend, _Mutual):
            vectors += self.attend(read[0], read[1])
        return self.head(torch.cat(vectors, 1))  # type: ignore[no-any-return]

    def point(self, image: Encoded, text: Encoded, boxes: Tensor) -> Tensor:
        """(B, K) scores of each region."""
        assert image.tokens is not None
        return self.head(self._pooled(image, text), image.tokens, boxes)  # type: ignore[no-any-return]

    # The pair.

    def _pooled(self, image: Encoded, text: Encoded) -> Tensor:
        return self._fuse(image, text).pooled

    def _fuse(self, image: Encoded, text: Encoded, tokens: bool = False) -> Fused:
        """What the method makes of a pair, or the adapter of a dual encoder."""
        if "fuse" in abilities_of(self.base):
            return self.base.fuse(image, text, tokens=tokens)  # type: ignore[operator, no-any-return]
        if tokens or (image.tokens is not None and self.config.two == "triplet" and self.config.pictures > 1):
            raise ValueError(
                f"{self.config.method} reads no picture with its text; two pictures are compared as `pair`"
            )
        v, t = (_vector(side) for side in (image, text))
        return Fused(torch.cat([v, t, v * t, (v - t).abs()], 1))

    def _fused_width(self) -> int:
        if "fuse" in abilities_of(self.base):
            return int(self.base.fused_width)  # type: ignore[arg-type]
        if not {"encode_image", "encode_text"} <= set(abilities_of(self.base)):
            raise ValueError(f"{self.config.method} does not read pictures and texts; tune one that does")
        return 4 * self._probe()[1].shape[1]

    def _picture_width(self) -> int:
        return self._probe()[0].shape[2]

    @torch.no_grad()
    def _probe(self) -> tuple[Tensor, Tensor]:
        """Tokens and vector of a blank picture: how wide they are, whatever the method calls it."""
        encoded = self.base.encode_image(torch.zeros(1, 3, *(2 * [picture_size(self.base.config)])))  # type: ignore[operator]
        return encoded.tokens, _vector(encoded)

    def learning_rates(self) -> list[tuple[str, float]]:
        """The head's own rate, and less for lower blocks where that is asked for."""
        rates = [(r"^(head|attend)\.", self.config.head_rate)]
        decay = self.config.layer_decay
        if decay == 1.0:
            return rates
        depths: dict[str, int] = {}
        for name, _ in self.base.named_parameters():
            if found := re.match(r"(.*?blocks)\.(\d+)\.", name):
                depths[found[1]] = max(depths.get(found[1], 0), int(found[2]) + 1)
        for stack, depth in depths.items():
            own = rf"^base\.{re.escape(stack)}\."
            rates += [(rf"{own}{block}\.", decay ** (depth - block)) for block in range(depth)]
        # What is below all blocks: patches, words, positions.
        return [*rates, (r"embed|patches|positions|words\.|token", decay ** (max(depths.values(), default=0) + 1))]

    # The training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Scores of every row. A picture that several rows are about is encoded once."""
        assert batch.images is not None and batch.pictures is not None
        image = self.encode_image(batch.images)
        places = batch.pictures
        if batch.choices is not None and batch.choices_mask is not None:
            count = batch.choices.shape[1]
            real = batch.choices_mask.any(2).flatten()
            kept = real.nonzero()[:, 0]
            text = self._read(batch.choices.flatten(0, 1)[kept], batch.choices_mask.flatten(0, 1)[kept])
            scores = self.choose(image.rows(places[kept // count, 0]), text)
            lowest = torch.finfo(scores.dtype).min
            return {"logits": scores.new_full(real.shape, lowest).index_put((kept,), scores).view(-1, count)}
        assert batch.text is not None and batch.text_mask is not None
        text = self._read(batch.text, batch.text_mask)
        if self.config.kind == "judged":
            return {"logits": self.judge(tuple(image.rows(each) for each in places.unbind(1)), text)}
        own = image.rows(places[:, 0])
        if self.config.kind == "pointed":
            assert batch.boxes is not None
            return {"logits": self.point(own, text, batch.boxes)}
        return {"logits": self.answer(own, text)}

    def _read(self, ids: Tensor, mask: Tensor) -> Encoded:
        return self.base.encode_text(ids, mask)  # type: ignore[operator, no-any-return]

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """The loss of the kind of examples."""
        logits = reps["logits"]
        if self.config.kind == "asked":
            assert batch.targets is not None
            asked = soft_answers(logits, batch.targets)
            return Losses(
                {"answer": Term(asked.loss, chance=asked.chance, formula=asked.formula)},
                report={"accuracy": asked.score},
            )
        if self.config.kind == "pointed":
            assert batch.targets is not None and batch.boxes_mask is not None
            real = batch.boxes_mask
            pointed = soft_answers(logits[real][:, None], batch.targets[real][:, None])
            best = logits.masked_fill(~real, torch.finfo(logits.dtype).min).argmax(1, keepdim=True)
            right = batch.targets.gather(1, best).mean()
            return Losses(
                {"point": Term(pointed.loss, chance=pointed.chance, formula="H(share of right regions)")},
                report={"accuracy": right},
            )
        assert batch.labels is not None
        found = classification(logits, batch.labels)
        term = Term(found.loss, chance=found.chance, formula=found.formula)
        return Losses({_ABLE[self.config.kind]: term}, report={"accuracy": found.accuracy})


class _Mutual(nn.Module):
    """UNITER's pair-attention: the tokens of either reading attend to those of the other, and are pooled by attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = max(1, width // 64)
        self.attention = Attention(width, heads, memory_width=width)
        self.norm = nn.LayerNorm(width)
        self.weigh = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, left: Fused, right: Fused) -> list[Tensor]:
        """Two vectors (B, width)."""
        found = []
        for own, other in ((left, right), (right, left)):
            assert own.tokens is not None and other.tokens is not None
            visibility = Visibility.of(other.mask, other.tokens.shape[1], other.tokens.device)
            tokens = self.norm(own.tokens + self.attention(own.tokens, other.tokens, visibility))
            weights = self.weigh(tokens)[..., 0]
            if own.mask is not None:
                weights = weights.masked_fill(~own.mask, torch.finfo(weights.dtype).min)
            found.append((weights.softmax(1)[..., None] * tokens).sum(1))
        return found


def _vector(side: Encoded) -> Tensor:
    """One vector a row: the embedding, or where there is none the mean of the tokens."""
    if side.has_embedding:
        return side.embedding
    assert side.tokens is not None
    if side.mask is None:
        return side.tokens.mean(1)
    real = side.mask[..., None].to(side.tokens.dtype)
    return (side.tokens * real).sum(1) / real.sum(1).clamp(min=1)


def _in_one(images: tuple[Encoded, ...]) -> Encoded:
    """The tokens of several pictures as those of one."""
    tokens = [each.tokens for each in images if each.tokens is not None]
    return replace(images[0], tokens=torch.cat(tokens, 1))


def picture_size(config: Any) -> int:
    """The side of the pictures that a method's config is made for."""
    return int(config.image.size if hasattr(config, "image") else config.size)
