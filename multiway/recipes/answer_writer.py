"""Tuning a trained run to write answers to questions.

    answer_writer("runs/albef")     a decoder on ALBEF's fused tokens, learnt from the questions of scenes

The tuned run ranks the list (task `vqa`) and writes freely (task `vqa-generate`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from multiway.batch import DataInfo
from multiway.config import ConfigError, to_json
from multiway.data.annotated.open import open_examples
from multiway.data.example_loader import ExampleLoader
from multiway.data.tokenizer import Tokenizer
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.hub.load import load
from multiway.methods.answer_writer import AnswerWriter, AnswerWriterConfig
from multiway.methods.method import Method
from multiway.recipes.finetune import at_size
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD
from multiway.tasks import TASKS
from multiway.tasks.generated_answers import GeneratedAnswers
from multiway.world import World

__all__ = ["AnswerWriterRecipe", "answer_writer", "spelt"]


@dataclass(frozen=True)
class AnswerWriterRecipe(Recipe):
    """A trained run, a decoder of answers on it, and questions with answers.

    Attributes:
        questions: which answers are learnt, and how much from each.
    """

    name: ClassVar[str] = "answer-writer"
    method_name: ClassVar[str] = "answer-writer"

    questions: GeneratedAnswers = GeneratedAnswers()
    method: AnswerWriterConfig = AnswerWriterConfig()

    def open(self, spec: str, split: str) -> Any:
        """One split of the questions."""
        return open_examples(spec, "vqa", split, self.images)

    def texts(self, source: Any) -> list[str]:
        """What is asked; only needed where the run that is tuned has no tokeniser."""
        return [source.example(number).text for number in range(min(len(source), self.questions.scanned))]

    def info(self, source: Any, tokenizer: Tokenizer) -> DataInfo:
        """The words, and the answers that are learnt."""
        return DataInfo(
            vocabulary=len(tokenizer),
            context=tokenizer.context,
            samples=len(source),
            special=tokenizer.special,
            answers=self.method.answers or self.questions.answers(source),
        )

    def loader(self, source: Any, tokenizer: Tokenizer, info: DataInfo, world: World) -> ExampleLoader:
        """Batches of questions, with the weight of each answer."""
        settings = self.settings
        return ExampleLoader(
            source,
            self.view,
            tokenizer,
            self.questions.wanted(info.answers),
            settings.batch,
            settings.seed,
            world.rank,
            world.size,
            settings.workers,
        )

    def build(self, info: DataInfo) -> Method:
        """The run's method at this recipe's picture size, and a decoder that begins from its blocks.

        Raises:
            ConfigError: if no run is named, or it has no tokens to write from.
        """
        if not self.init:
            raise ConfigError("there is nothing to be tuned; name a run: --init RUN")
        trained = load(self.init)
        under = trained.method.starting
        tokenizer = trained.processor.tokenizer
        if self.tokenizer.path or tokenizer is None:
            if not self.tokenizer.path:
                raise ConfigError(
                    f"{self.init} has no tokeniser, so that answers cannot be spelt; name one: --tokenizer.path"
                )
            tokenizer = Tokenizer.open(self.tokenizer, ())
        config = at_size(under.config, self.view.size)
        filled = replace(self.method, method=under.name, of=to_json(config))
        filled = replace(filled, answer_ids=spelt(filled.answers or info.answers, tokenizer)).resolve(info)
        writer = AnswerWriter(filled)
        writer.decoder.begin_from(under)
        return writer


def spelt(answers: tuple[str, ...], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """The token ids of each answer between start and end token, whatever the tokeniser puts around a text.

    Raises:
        ConfigError: for one that has no tokens, or fills the tokeniser's context.
    """
    special = set(tokenizer.special.values())
    end = tokenizer.special["eos"]
    start = tokenizer.special.get("bos", end)
    found = []
    words = tokenizer(answers)
    for answer, ids, mask in zip(answers, words.ids.tolist(), words.mask.tolist(), strict=True):
        inner = [each for each, real in zip(ids, mask, strict=True) if real and each not in special]
        if not inner or len(inner) + 2 >= tokenizer.context:  # as long as the context: what came after was cut off
            raise ConfigError(
                f"the answer {answer!r:.60} has {len(inner) or 'no'} tokens or more; expected 1 to {tokenizer.context - 3}: leave it "
                "out of the list"
            )
        found.append((start, *inner, end))
    return tuple(found)


def answer_writer(run: str) -> AnswerWriterRecipe:
    """Tuning of a run to write answers: pictures drawn as the run drew them, on scenes unless other data are named.

    A few hundred steps at a third of a small recipe's rate; ALBEF and BLIP are tuned at 2e-5.
    """
    model = load(run)
    return AnswerWriterRecipe(
        settings=Settings(steps=400, batch=64, lr=3e-4, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.1)),
        data=WORLD,
        init=run,
        view=replace(model.processor.view, augment="none"),
        evaluate=("vqa=@val",) if "vqa" in TASKS else (),
        best="accuracy",
    )
