"""Tuning a trained run to write answers to questions.

multiway finetune runs/albef --task vqa-generate --out runs/writes
multiway finetune runs/blip --task vqa-generate --data vqa:data/vqa --view.size 480 --lr 2e-5 --out runs/writes
multiway eval runs/writes --task vqa-generate --data vqa:data/vqa@test --predictions answers.json

The tuned run writes freely (task `vqa-generate`) and ranks the list (task `vqa`).
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
from multiway.recipes.finetune import at_size, example_loader
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD
from multiway.tasks import TASKS
from multiway.tasks.example_task import ExampleTask, require_examples
from multiway.tasks.generated_answers import GeneratedAnswers
from multiway.world import World

__all__ = ["AnswerList", "AnswerWriterRecipe", "answer_writer", "spelt", "written"]


@dataclass(frozen=True)
class AnswerList:
    """Which answers are learnt from: the most frequent ones, every person's counted.

    Attributes:
        size: how many at most; 3,129 is the field's list of VQAv2.
        least: how often each is given.
        scanned: training questions that are looked at for them.
    """

    size: int = 3129
    least: int = 9
    scanned: int = 20_000

    def __post_init__(self) -> None:
        if self.size < 2 or self.least < 1 or self.scanned < 1:
            raise ConfigError(
                f"answers.size counts from 2, answers.least and answers.scanned from 1; given {self.size}, {self.least} and "
                f"{self.scanned}"
            )


@dataclass(frozen=True)
class AnswerWriterRecipe(Recipe):
    """A trained run, a decoder of answers on it, and questions with answers.

    Attributes:
        task: what it is tuned for.
        answers: which are learnt from; `--method.answers` names them instead.

    Raises:
        ConfigError: for a task whose answers are not written, and evaluations that are not on such questions or report under
            one name.
    """

    name: ClassVar[str] = "answer-writer"
    method_name: ClassVar[str] = "answer-writer"

    task: str = "vqa-generate"
    answers: AnswerList = AnswerList()
    method: AnswerWriterConfig = AnswerWriterConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in (able := written()):
            raise ConfigError(f"no answers are written in the task {self.task!r}; tasks that do: {', '.join(able)}")
        for entry in self.evaluate:
            other = TASKS[entry.partition("=")[0]]
            if not isinstance(other, ExampleTask) or (other.kind, other.pictures) != ("asked", 1):
                raise ConfigError(
                    f"evaluate is {entry!r}; while a run learns to write answers it is measured on questions. Other tasks are "
                    f"measured afterwards: multiway eval RUN --task {other.name}"
                )
        measured = [entry.partition("=")[2] for entry in self.evaluate]
        if len(set(measured)) < len(measured):
            raise ConfigError(
                f"evaluate is {', '.join(self.evaluate)}; two tasks on the same data would both report `accuracy`: name one, and "
                "measure the other afterwards with multiway eval"
            )

    @property
    def questions(self) -> GeneratedAnswers:
        """The task, with this recipe's list."""
        task = TASKS[self.task]
        assert isinstance(task, GeneratedAnswers)
        return replace(task, size=self.answers.size, least=self.answers.least, scanned=self.answers.scanned)

    def open(self, spec: str, split: str) -> Any:
        """One split of the questions."""
        examples = open_examples(spec, "asked", split, self.images)
        require_examples(self.task, examples, "asked", 1)
        return examples

    def texts(self, source: Any) -> list[str]:
        """What is asked; only needed where the run that is tuned has no tokeniser."""
        return [source.example(number).text for number in range(min(len(source), self.answers.scanned))]

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
        return example_loader(self, source, tokenizer, self.questions.wanted(info.answers), world)

    def build(self, info: DataInfo) -> Method:
        """The run's method at this recipe's picture size, and a decoder that begins from its blocks.

        Raises:
            ConfigError: if no run is named, it has no tokens to write from, or does not take pictures of this size.
        """
        if not self.init:
            raise ConfigError("there is nothing to be tuned; name a run: multiway finetune RUN --task vqa-generate")
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
        try:
            writer = AnswerWriter(filled)
        except ConfigError:
            raise
        except ValueError as error:  # a part that cannot be built for these pictures
            raise ConfigError(f"{self.init} cannot be tuned with pictures of {self.view.size}: {error}") from error
        writer.decoder.begin_from(under)
        return writer


def written() -> list[str]:
    """Names of the tasks whose answers are written, and that a decoder is tuned for."""
    return [name for name, each in TASKS.items() if isinstance(each, GeneratedAnswers)]


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


def answer_writer(run: str, task: str = "vqa-generate") -> AnswerWriterRecipe:
    """Tuning of a run to write answers: pictures drawn as the run drew them, on scenes unless other data are named.

    A few hundred steps at a third of a small recipe's rate; ALBEF and BLIP are tuned at 2e-5 (`--lr`). The run is measured on val
    at its end by what it writes; test is for `multiway eval`.
    """
    model = load(run)
    return AnswerWriterRecipe(
        settings=Settings(steps=400, batch=64, lr=3e-4, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.1)),
        data=WORLD,
        init=run,
        view=replace(model.processor.view, augment="none"),
        task=task,
        evaluate=(f"{task}=@val",) if task in written() else (),
        best="accuracy",
    )
