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

A dual encoder reads nothing together. Its adapter is what can be made of two vectors (`methods/pair_vectors.py`): a head over both
embeddings. A text encoder reads no picture: with its head it is the baseline that has the words alone, as is any method with
`blind`.

All of the method learns, or less: `methods/kept.py`.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from multiway.abilities import ABILITIES, Encoded, Tokens, abilities_of, reader
from multiway.batch import Batch
from multiway.config import ConfigError
from multiway.methods import method_class
from multiway.methods.example_losses import HEADS, example_losses
from multiway.methods.finetune_config import FineTuneConfig, Two
from multiway.methods.method import Losses, Pairs, Reps, Step
from multiway.methods.on_another import Tuned
from multiway.methods.pair_vectors import fuse, in_one, picture_size, widths
from multiway.nn.task_heads import Classifier, PairAttention, RegionScorer
from multiway.world import World

__all__ = ["HEADS", "FineTune", "FineTuneConfig", "Two", "picture_size"]


class FineTune(Tuned):
    """A method with a task's head."""

    name = "finetune"
    config_class = FineTuneConfig
    config: FineTuneConfig
    lent: ClassVar[tuple[str, ...]] = (*ABILITIES, "fused_width", "text_to_fuse")  # what a fused method has besides
    heads: ClassVar[str] = r"^(head|attend|sides)\."

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
        self.sees = "encode_image" in able
        if "encode_text" not in able or not (self.sees or "fuse" in able):
            raise ConfigError(f"{config.method} does not read pictures and texts; tune a method that does")
        width = widths(self.base, config)
        wide = width.pair
        self.attend: nn.Module = nn.Identity()
        self.sides: nn.Embedding | None = None
        if config.pictures == 2 and config.two == "triplet":
            self.sides = nn.Embedding(2, width.picture)
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
                self.attend = PairAttention(width.word)
                wide += 2 * width.word
        self.head: nn.Module
        if config.kind == "pointed":
            self.head = RegionScorer(width.pair, width.picture)
        else:
            # Of many answers nearly all are wrong: beginning at a half would first have to be unlearnt.
            prior = -math.log(len(config.answers)) if config.kind == "asked" else 0.0
            self.head = Classifier(wide, len(config.answers) if config.kind in ("asked", "judged") else 1, prior=prior)
        self.tune(config)

    # What it can be asked.

    def abilities(self) -> tuple[str, ...]:
        """Those of the method underneath, and the new one. One that reads no picture takes blanks."""
        own = {*abilities_of(self.base), "encode_image", HEADS[self.config.kind]}
        return tuple(name for name in ABILITIES if name in own)

    @property
    def answers(self) -> tuple[str, ...]:
        """The list of answers."""
        return self.config.answers

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Names of the verdicts."""
        return self.config.answers

    def encode_image(self, images: Tensor) -> Encoded:
        """As the method underneath reads them; a blind one reads the same even picture in place of each."""
        return self._shown(images, tokens=True)

    def image_to_fuse(self, images: Tensor) -> Encoded:
        """As `encode_image`, for the head alone."""
        return self._shown(images, tokens="only")

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
            return self.head(self._pooled(in_one(images, self.sides.weight), text))  # type: ignore[no-any-return]
        if self.config.two == "own":
            return self.head(self.base.fuse_two(*images, text).pooled)  # type: ignore[operator, no-any-return]
        read = [fuse(self.base, image, text, tokens=self.config.two == "pair-attention") for image in images]
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

    def _shown(self, images: Tensor, tokens: Tokens) -> Encoded:
        if not self.sees:
            blank = images.new_zeros(len(images), 1, int(self.base.fused_width))  # type: ignore[arg-type]
            return Encoded(blank.new_zeros(len(images), 0), blank)
        read = reader(self.base, "image", tokens)
        if not self.config.blind:
            return read(images)
        return read(torch.zeros_like(images[:1])).rows(
            torch.zeros(len(images), dtype=torch.int64, device=images.device)
        )

    def _pooled(self, image: Encoded, text: Encoded) -> Tensor:
        return fuse(self.base, image, text).pooled

    # The training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Scores of every row. A picture that several rows are about is encoded once."""
        assert batch.images is not None and batch.pictures is not None
        image = self.image_to_fuse(batch.images)
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
        return reader(self.base, "text", "only")(ids, mask)

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """The loss of the kind of examples."""
        return example_losses(self.config.kind, reps["logits"], batch)
