"""A decoder of answers on a method that reads pictures with questions: generative VQA, itself a method.

Li et al., ALBEF, 2021, arXiv 2107.07651, and BLIP, 2022, arXiv 2201.12086, figure 5: the question is read with its picture, and a
small decoder writes the answer while it looks at the question's tokens, which have seen the picture. Every method whose `fuse`
gives tokens can be put underneath.

    training   each answer that people gave, by the share of them who gave it (`losses/weighted_lm.py`)
    answer     the likeliest of a list: the `top` answers by their first token are scored in full, by the chain rule,
               log p(answer) = sum_t log p(a_t | before t), end token included
    write      the likeliest text, whether it is on the list or not

ALBEF's released code adds the first token's log-probability a second time when it ranks; BLIP's does not, nor is it done here.
Departures: answers are learnt from the list alone; with a list of all answers that occur nothing is lost. ALBEF's momentum
distillation of the answers (alpha 0.4 in its released `configs/VQA.yaml`) is left out, as BLIP leaves it out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from multiway.abilities import ABILITIES, Encoded, abilities_of, reader
from multiway.batch import Batch, DataInfo
from multiway.config import ConfigError
from multiway.losses.weighted_lm import weighted_lm
from multiway.methods import METHODS, method_class
from multiway.methods.finetune import picture_size
from multiway.methods.method import Losses, Pairs, Reps, Step, Term
from multiway.methods.on_another import OnAnother
from multiway.methods.writing import Writing, write
from multiway.nn.answer_decoder import AnswerDecoder
from multiway.nn.generate import Generation, Texts
from multiway.world import World

__all__ = ["AnswerWriter", "AnswerWriterConfig"]

_NEEDS = ("encode_image", "encode_text", "fuse")  # of the method underneath
_ROWS = 4096  # answers that are scored at once
_ANY_SIZE = 64  # side of the blank picture by which widths are found, for towers that take any


@dataclass(frozen=True)
class AnswerWriterConfig:
    """What is tuned, and how it writes.

    Attributes:
        method: name of the method underneath; filled in from the run that is tuned, as is
        of: its config, as JSON.
        answers: the list, and
        answer_ids: the token ids of each, start and end token included; filled in from the data and the run's tokeniser.
        layers: blocks of the decoder; ALBEF and BLIP have as many as read the question with the picture.
        top: answers of the list that are scored in full; 128 is ALBEF's and BLIP's, 0 means all.
        vocabulary, start, end, pad: of the tokeniser.
        longest: greatest number of tokens of a written answer.
        blind: whether the picture is hidden: the baseline that has the words alone.
        head_rate: learning rate of the decoder over that of the method underneath.
    """

    method: str = ""
    of: dict[str, Any] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    answer_ids: tuple[tuple[int, ...], ...] = ()
    layers: int = 2
    top: int = 128
    vocabulary: int = 0
    start: int = -1
    end: int = -1
    pad: int = -1
    longest: int = 12
    blind: bool = False
    head_rate: float = 3.0

    def resolve(self, data: DataInfo) -> AnswerWriterConfig:
        """The config with answers, vocabulary and special ids from the data; what was given is kept."""
        end = data.special.get("eos", 0) if self.end < 0 else self.end
        return replace(
            self,
            answers=self.answers or data.answers,
            vocabulary=self.vocabulary or data.vocabulary,
            start=data.special.get("bos", end) if self.start < 0 else self.start,
            end=end,
            pad=data.special.get("pad", end) if self.pad < 0 else self.pad,
            longest=max(self.longest, *map(len, self.answer_ids)) if self.answer_ids else self.longest,
        )


class AnswerWriter(OnAnother):
    """A method with a decoder of answers."""

    name = "answer-writer"
    config_class = AnswerWriterConfig
    config: AnswerWriterConfig
    lent: ClassVar[tuple[str, ...]] = (*ABILITIES, "fused_width")

    def __init__(self, config: AnswerWriterConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.base = method_class(config.method).from_config_json(config.of)
        if not {*_NEEDS} <= {*abilities_of(self.base)}:
            raise ConfigError(
                f"{config.method}, as this run has it, does not read a picture with a question, so that there are no tokens to write "
                f"from; methods that do: {', '.join(_able())}. To choose from a list instead: multiway finetune RUN --task vqa"
            )
        self.decoder = AnswerDecoder(self.base, self._token_width(), config.layers, config.vocabulary, config.longest)
        ids = torch.full((len(config.answer_ids), max(map(len, config.answer_ids))), config.pad)
        for row, own in enumerate(config.answer_ids):
            ids[row, : len(own)] = torch.tensor(own)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("lengths", torch.tensor([len(own) for own in config.answer_ids]), persistent=False)
        self.ids: Tensor
        self.lengths: Tensor

    # What it can be asked.

    def abilities(self) -> tuple[str, ...]:
        """Those of the method underneath, and the new ones."""
        return (*(name for name in abilities_of(self.base) if name != "answer"), "answer", "write_answers")

    @property
    def answers(self) -> tuple[str, ...]:
        """The list of answers."""
        return self.config.answers

    def encode_image(self, images: Tensor) -> Encoded:
        """As the method underneath reads them; a blind one reads one grey picture in place of each."""
        return self.base.encode_image(torch.zeros_like(images) if self.config.blind else images)  # type: ignore[operator, no-any-return]

    def answer(self, image: Encoded, text: Encoded) -> Tensor:
        """(B, A) log-probability of each answer of the list; those that are not among the `top` have the lowest number."""
        memory, mask = self._read(image, text)
        rows, count = memory.shape[0], len(self.config.answers)
        start = torch.full((rows, 1), self.config.start, device=memory.device)
        first = self.decoder(start, memory, mask)[:, 0].float().log_softmax(-1)[:, self.ids[:, 1]]
        # Answers that begin with the same token are equal here: the earlier of the list come first, on whatever runs this.
        ranked = first.double() - 1e-12 * torch.arange(count, device=first.device)
        kept = ranked.topk(min(self.config.top or count, count), 1)[1]
        places = torch.stack(
            [torch.arange(rows, device=memory.device).repeat_interleave(kept.shape[1]), kept.flatten()]
        )
        # A graph of any batch cannot say how many parts there would be.
        parts = [places] if torch.compiler.is_exporting() else places.split(_ROWS, 1)
        told = torch.cat([self._told(some[1], memory, mask, some[0]) for some in parts])
        lowest = torch.full((rows, count), torch.finfo(torch.float32).min, device=memory.device)
        return lowest.scatter(1, kept, told.unflatten(0, kept.shape))

    def write_answers(
        self, image: Encoded, text: Encoded, settings: Generation, generator: torch.Generator | None = None
    ) -> Texts:
        """Answers to B questions in the decoder's own words; see `nn.generate.generate`.

        Raises:
            ConfigError: if they are to be longer than the decoder has positions.
        """
        if settings.min_length > self.config.longest:
            raise ConfigError(
                f"answers of {settings.min_length} tokens or more (min_length) are asked for; this run writes at most "
                f"{self.config.longest}, start and end included: ask for shorter ones, or tune with a greater --method.longest"
            )
        memory, mask = self._read(image, text)
        config, decoding = self.config, self.decoder.decoding(memory, mask)
        return write(
            Writing(decoding, config.start, config.end, config.pad, config.longest), settings, generator=generator
        )

    # Question and answer.

    def _read(self, image: Encoded, text: Encoded) -> tuple[Tensor, Tensor | None]:
        """(B, L, W) tokens of the questions, having seen the pictures, and (B, L) which are real."""
        fused = self.base.fuse(image, text, tokens=True)  # type: ignore[operator]
        return fused.tokens, fused.mask

    def _told(self, answers: Tensor, memory: Tensor, mask: Tensor | None, rows: Tensor) -> Tensor:
        """(R,) log-probability of answers (R,) of the list to questions `rows` (R,)."""
        ids = self.ids[answers]  # as wide as the longest of the list: whichever are asked for, the shape is one
        logp = self.decoder(ids[:, :-1], memory, mask, rows).float().log_softmax(-1)
        each = logp.gather(2, ids[:, 1:, None])[..., 0]
        return (each * self._real(ids, answers)).sum(1)

    def _real(self, ids: Tensor, answers: Tensor) -> Tensor:
        """(R, L - 1) bool, the tokens that are to be written: all of an answer but its start token."""
        return torch.arange(1, ids.shape[1], device=ids.device) < self.lengths[answers][:, None]

    @torch.no_grad()
    def _token_width(self) -> int:
        side = picture_size(self.base.config) or _ANY_SIZE
        image = self.base.encode_image(torch.zeros(1, 3, side, side))  # type: ignore[operator]
        ids = torch.zeros(1, 2, dtype=torch.int64)
        text = self.base.encode_text(ids, torch.ones_like(ids, dtype=torch.bool))  # type: ignore[operator]
        return int(self.base.fuse(image, text, tokens=True).tokens.shape[2])  # type: ignore[operator]

    def learning_rates(self) -> list[tuple[str, float]]:
        """The decoder's own rate."""
        return [(r"^decoder\.", self.config.head_rate)]

    # The training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """The questions' tokens. A picture that several questions are about is encoded once."""
        assert batch.images is not None and batch.pictures is not None
        assert batch.text is not None and batch.text_mask is not None
        image = self.encode_image(batch.images).rows(batch.pictures[:, 0])
        text = reader(self.base, "text", "only")(batch.text, batch.text_mask)
        memory, mask = self._read(image, text)
        return {"memory": memory, **({} if mask is None else {"mask": mask})}

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Every answer of each question, by its weight."""
        assert batch.targets is not None
        rows, answers = batch.targets.nonzero().unbind(1)
        nothing = len(rows) == 0
        if nothing:  # an answer that is read and counts for nothing: every rank takes the same backward
            rows = answers = torch.zeros(1, dtype=torch.int64, device=batch.targets.device)
        ids = self.ids[answers, : int(self.lengths[answers].max())]
        logits = self.decoder(ids[:, :-1], reps["memory"], reps.get("mask"), rows)
        real = self._real(ids, answers) & (not nothing)
        weight = batch.targets[rows, answers][:, None].expand_as(real)
        said = weighted_lm(logits[real], ids[:, 1:][real], weight[real], len(batch.targets))
        return Losses(
            {"lm": Term(said.loss, chance=said.chance, formula=said.formula)}, report={"lm_accuracy": said.accuracy}
        )


def _able() -> list[str]:
    """Names of the methods that read a picture with a text, those that a method has for two pictures aside."""
    classes = {name: method_class(name) for name in METHODS}
    return [
        name
        for name, each in classes.items()
        if all(hasattr(each, need) for need in _NEEDS) and not hasattr(each, "fuse_two")
    ]


def _check(config: AnswerWriterConfig) -> None:
    """Refuse a config that is not filled in."""
    if not config.method:
        raise ConfigError("there is nothing to be tuned; name a run: multiway finetune RUN --task vqa-generate")
    if len(config.answers) < 2 or len(config.answers) != len(config.answer_ids):
        raise ConfigError(
            f"{len(config.answers)} answers with the tokens of {len(config.answer_ids)}; expected at least 2, each with its tokens"
        )
    if min(map(len, config.answer_ids)) < 2 or config.vocabulary < 1 or min(config.start, config.end, config.pad) < 0:
        raise ConfigError(
            "answers need a start and an end token each, and the decoder a vocabulary: config.resolve(info)"
        )
    if config.layers < 1 or config.top < 0:
        raise ConfigError(f"layers count from 1 and top from 0 (all); given {config.layers} and {config.top}")
    if config.longest < max(map(len, config.answer_ids)):
        raise ConfigError(
            f"longest is {config.longest}; an answer of the list has {max(map(len, config.answer_ids))} tokens: config.resolve(info)"
        )
