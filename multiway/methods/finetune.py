"""Fine-tuning: a trained method, a head on the pairs that it reads, and the head's loss. Itself a method.

As the field does it (UNITER, ViLT, ALBEF, VLMo, BEiT-3, ...): the vector that a method makes of a picture and a text (ability
`fuse`) goes through a small classifier, and all of it is trained on the task's examples.

    asked     questions: a score for each of a list of answers, each of which is more or less right (Teney et al., 2018)
    judged    sentences about one picture, or two: a score for each verdict
    chosen    several texts with one picture: a score for each; softmax over them (VCR: question and answer as one text)
    pointed   regions of the picture: a score for each, sigmoid (MAttNet, UNITER: a region that overlaps by half is right)

Two pictures (NLVR2) are read as Chen et al., UNITER, 2020, arXiv 1909.11740, table 5, compares: `pair`, each with the text, the
two vectors side by side; `triplet`, the tokens of both in one sequence with the text, each picture's marked by a vector of its
own, since most methods take tokens as a set; `pair-attention`, as `pair`, and then the tokens of each reading attend to those
of the other (there all tokens; here those of the text, which have seen the picture); or in the way of the method's own paper,
`own`, where it has one (ALBEF, BLIP).

A dual encoder reads nothing together. Its adapter is what can be made of two vectors, [v, t, v * t, |v - t|]: a head over both
embeddings (Conneau et al., 2017, arXiv 1705.02364, section 3.1, for sentences). A text encoder reads no picture: with its head
it is the baseline that has the words alone, as is any method with `blind`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from multiway.abilities import ABILITIES, Encoded, Fused, abilities_of
from multiway.batch import Batch, DataInfo
from multiway.config import ConfigError
from multiway.losses.classification import classification
from multiway.losses.right_regions import right_regions
from multiway.losses.soft_answers import soft_answers
from multiway.methods import method_class
from multiway.methods.layer_decay import layer_rates
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.nn.task_heads import Classifier, PairAttention, RegionScorer
from multiway.world import World

__all__ = ["HEADS", "FineTune", "FineTuneConfig", "Two", "picture_size"]

Two = Literal["pair", "triplet", "pair-attention", "own"]

HEADS = {"asked": "answer", "judged": "judge", "chosen": "choose", "pointed": "point"}
"""What a model that was tuned for a kind of examples is able to do: the ability that its head gives."""

# What a fused method has beside the abilities' own names.
_LENT = (*ABILITIES, "fused_width")

_ANY_SIZE = 64  # side of the picture by which widths are found, for towers that take any


@dataclass(frozen=True)
class FineTuneConfig:
    """What is tuned, for what.

    Attributes:
        method: name of the method underneath; filled in from the run that is tuned, as is
        of: its config, as JSON.
        kind: of examples; filled in from the task, as is
        pictures: how many each example is about.
        answers: that are chosen among, or names of verdicts; filled in from the data.
        two: how two pictures are read.
        blind: whether the picture is hidden: the baseline that has the words alone.
        head_rate: learning rate of the head, which begins at random, over that of the method underneath.
        layer_decay: factor of the learning rate from each block to the one below it (Clark et al., ELECTRA, 2020, arXiv
            2003.10555, appendix B; BEiT); 1 trains all alike. Each tower counts its own blocks.

    Raises:
        ConfigError: for rates that teach nothing.
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

    def __post_init__(self) -> None:
        if not 0 < self.head_rate < math.inf or not 0 < self.layer_decay <= 1:
            raise ConfigError(
                f"a head needs a rate above 0, and rates fall by a factor in (0, 1] from block to block; given head_rate "
                f"{self.head_rate:g} and layer_decay {self.layer_decay:g}"
            )

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
            raise ConfigError("there is nothing to be tuned; name a run: multiway finetune RUN")
        if config.kind in ("asked", "judged") and len(config.answers) < 2:
            raise ConfigError(f"{len(config.answers)} answers leave nothing to choose; expected at least 2")
        if not 1 <= config.pictures <= 2 or (config.pictures == 2 and config.kind != "judged"):
            raise ConfigError(
                f"{config.kind} examples are about one picture, judged ones about one or two; given {config.pictures}"
            )
        self.config = config
        self.base = method_class(config.method).from_config_json(config.of)
        able = abilities_of(self.base)
        self.fuses, self.sees = "fuse" in able, "encode_image" in able
        if "encode_text" not in able or not (self.sees or self.fuses):
            raise ConfigError(f"{config.method} does not read pictures and texts; tune a method that does")
        widths = self._widths()
        wide = widths.pair
        self.attend: nn.Module = nn.Identity()
        self.sides: nn.Embedding | None = None
        if config.pictures == 2 and config.two == "triplet":
            self.sides = nn.Embedding(2, widths.picture)
            nn.init.normal_(self.sides.weight, std=0.02)
        elif config.pictures == 2 and config.two == "own":
            if "fuse_two" not in able:
                raise ConfigError(
                    f"{config.method} has no way of its own to read two pictures, as ALBEF and BLIP have; --method.two pair, triplet or "
                    "pair-attention"
                )
        elif config.pictures == 2:
            wide *= 2
            if config.two == "pair-attention":
                self.attend = PairAttention(widths.word)
                wide += 2 * widths.word
        self.head: nn.Module
        if config.kind == "pointed":
            self.head = RegionScorer(widths.pair, widths.picture)
        else:
            # Of many answers nearly all are wrong: beginning at a half would first have to be unlearnt.
            prior = -math.log(len(config.answers)) if config.kind == "asked" else 0.0
            self.head = Classifier(wide, len(config.answers) if config.kind in ("asked", "judged") else 1, prior=prior)

    # What it can be asked.

    def abilities(self) -> tuple[str, ...]:
        """Those of the method underneath, and the new one. One that reads no picture takes blanks."""
        own = {*abilities_of(self.base), "encode_image", HEADS[self.config.kind]}
        return tuple(name for name in ABILITIES if name in own)

    def __getattr__(self, name: str) -> Any:
        """What the method underneath can do, it still can: retrieval is measured before and after."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in _LENT and "base" in self.__dict__.get("_modules", {}):
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
        """As the method underneath reads them; a blind one reads the same even picture in place of each."""
        if not self.sees:
            blank = images.new_zeros(len(images), 1, self._fused_width())
            return Encoded(blank.new_zeros(len(images), 0), blank)
        if not self.config.blind:
            return self.base.encode_image(images)  # type: ignore[operator, no-any-return]
        blank = self.base.encode_image(torch.zeros_like(images[:1]))  # type: ignore[operator]
        return blank.rows(torch.zeros(len(images), dtype=torch.int64, device=images.device))  # type: ignore[no-any-return]

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
        if self.sides is not None:
            return self.head(self._pooled(_in_one(images, self.sides.weight), text))  # type: ignore[no-any-return]
        if self.config.two == "own":
            return self.head(self.base.fuse_two(*images, text).pooled)  # type: ignore[operator, no-any-return]
        read = [self._fuse(image, text, tokens=self.config.two == "pair-attention") for image in images]
        vectors = [each.pooled for each in read]
        if isinstance(self.attend, PairAttention):
            (left, right), mask = [each.tokens for each in read], text.mask
            assert left is not None and right is not None
            vectors += self.attend(left, right, mask)
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
        if self.fuses:
            return self.base.fuse(image, text, tokens=tokens)  # type: ignore[operator, no-any-return]
        v, t = (_vector(side) for side in (image, text))
        return Fused(torch.cat([v, t, v * t, (v - t).abs()], 1))

    def _fused_width(self) -> int:
        return int(self.base.fused_width)  # type: ignore[arg-type]

    @torch.no_grad()
    def _widths(self) -> _Widths:
        """How wide things are, whatever the method calls it: found by reading a blank picture, and a text where it is needed.

        Raises:
            ConfigError: if the method cannot do what is asked of it, before anything is trained.
        """
        two = self.config.two if self.config.pictures == 2 else "pair"
        if not self.fuses and two != "pair":
            raise ConfigError(
                f"{self.config.method} reads no picture with its text, so that two pictures can only be compared as two "
                f"pairs: --method.two pair; given {two}"
            )
        if not self.sees:
            width = self._fused_width()
            return _Widths(width, width, width)
        if self.config.kind == "pointed" and hasattr(self.base.config, "queries"):
            raise ConfigError(
                f"{self.config.method} keeps of a picture {self.base.config.queries} queries, which lie nowhere in it; "
                "regions are scored by methods that keep patches"
            )
        training = self.base.training
        self.base.eval()
        side = picture_size(self.base.config) or _ANY_SIZE
        image = self.base.encode_image(torch.zeros(1, 3, side, side))  # type: ignore[operator]
        pair = self._fused_width() if self.fuses else 4 * _vector(image).shape[1]
        picture = image.tokens.shape[2] if image.tokens is not None else 0
        word = 0
        if two not in ("pair", "own"):
            text = self._read(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool))
            shown = image if two == "pair-attention" else _in_one((image, image), torch.zeros(2, picture))
            try:
                tokens = self._fuse(shown, text, tokens=True).tokens
            except ValueError as error:
                raise ConfigError(
                    f"{self.config.method} does not read two pictures in one sequence ({error}); take --method.two pair"
                ) from error
            word = tokens.shape[2] if tokens is not None else 0
        self.base.train(training)
        return _Widths(pair, picture, word)

    def learning_rates(self) -> list[tuple[str, float]]:
        """The head's own rate, and less for lower blocks where that is asked for."""
        rates = [(r"^(head|attend|sides)\.", self.config.head_rate)]
        decay = self.config.layer_decay
        return rates if decay == 1.0 else [*rates, *layer_rates(self.base, decay, "base.")]

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
            pointed = right_regions(logits, batch.targets, batch.boxes_mask)
            return Losses(
                {"point": Term(pointed.loss, chance=pointed.chance, formula=pointed.formula)},
                report={"accuracy": pointed.score},
            )
        assert batch.labels is not None
        found = classification(logits, batch.labels)
        chance, formula = found.chance, found.formula
        if batch.choices_mask is not None:  # what stands in for choices that are not there is no choice
            chance = float(batch.choices_mask.any(2).sum(1).double().log().mean())
            formula = "mean of ln(choices)"
        term = Term(found.loss, chance=chance, formula=formula)
        return Losses({HEADS[self.config.kind]: term}, report={"accuracy": found.accuracy})


@dataclass(frozen=True)
class _Widths:
    """Of a pair's vector, of picture tokens, and of the text's tokens once they have seen the picture."""

    pair: int
    picture: int
    word: int


def _vector(side: Encoded) -> Tensor:
    """One vector a row: the embedding, or where there is none the mean of the tokens."""
    if side.has_embedding:
        return side.embedding
    assert side.tokens is not None
    if side.mask is None:
        return side.tokens.mean(1)
    real = side.mask[..., None].to(side.tokens.dtype)
    return (side.tokens * real).sum(1) / real.sum(1).clamp(min=1)


def _in_one(images: tuple[Encoded, ...], sides: Tensor) -> Encoded:
    """The tokens of several pictures as those of one, each marked by its own of the vectors (P, W)."""
    tokens = [each.tokens + side for each, side in zip(images, sides, strict=True) if each.tokens is not None]
    return replace(images[0], tokens=torch.cat(tokens, 1))


def picture_size(config: Any) -> int | None:
    """The side of the pictures that a method's config is made for; None if any will do, or none is read."""
    size = getattr(config.image if hasattr(config, "image") else config, "size", None)
    return None if size is None else int(size)
