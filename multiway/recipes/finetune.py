r"""Fine-tuning a trained run for a task.

multiway finetune runs/albef --task vqa --data scenes:easy,objects=1-3 --out runs/vqa
multiway finetune runs/albef --task nlvr2 --data nlvr2:data/nlvr2 --view.size 384 --method.two triplet --out runs/nlvr2
multiway finetune runs/albef --task vqa --method.blind --out runs/vqa-blind
multiway finetune runs/clip --task entailment --method.freeze image --out runs/ve
multiway finetune hf:clip-folder --task entailment --method.lora 'attention\.(qkv|out)' --lr 3e-4 --out runs/ve-lora
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from multiway.batch import DataInfo
from multiway.config import ConfigError, identity_json, to_json
from multiway.data.annotated.open import open_examples
from multiway.data.example_loader import ExampleLoader, Wanted
from multiway.data.tokenizer import Tokenizer
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.hub.load import load
from multiway.hub.sources import require_one
from multiway.methods.finetune import HEADS, FineTune, FineTuneConfig, picture_size
from multiway.methods.finetune_config import LATER
from multiway.methods.method import Method
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD
from multiway.tasks import TASKS
from multiway.tasks.example_task import ExampleTask, annotation, require_examples
from multiway.world import World

__all__ = ["FinetuneRecipe", "finetune"]


@dataclass(frozen=True)
class FinetuneRecipe(Recipe):
    """A trained run, a task's head on it, and the task's examples.

    Attributes:
        task: what it is tuned for.

    Raises:
        ConfigError: for a task that nothing is tuned for, evaluations on other kinds of examples, and pictures that are cut where
            boxes say what is meant.
        WeightsError: for a source for each of several parts: the method is one run's.
    """

    name: ClassVar[str] = "finetune"
    method_name: ClassVar[str] = "finetune"

    task: str = "vqa"
    method: FineTuneConfig = FineTuneConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one(self.init)
        if self.task not in (able := headed()):
            raise ConfigError(f"no head is tuned for the task {self.task!r}; tasks that have one: {', '.join(able)}")
        own = self._task
        for entry in self.evaluate:
            other = TASKS[entry.partition("=")[0]]
            if not isinstance(other, ExampleTask) or (other.kind, other.pictures) != (own.kind, own.pictures):
                raise ConfigError(
                    f"evaluate is {entry!r}; while a run is tuned for {self.task} it is measured on that. Other tasks are measured "
                    f"afterwards: multiway eval RUN --task {other.name}"
                )
        if own.kind == "pointed" and (self.view.crop != "squash" or self.view.augment != "none"):
            raise ConfigError(
                f"boxes are shares of the whole picture, which view.crop={self.view.crop} and view.augment={self.view.augment} "
                "do not keep: --view.crop squash --view.augment none"
            )

    def identity(self) -> dict[str, Any]:
        """As of any recipe; its method's config has a list of the fields that older runs lack."""
        return super().identity() | {"method": identity_json(self.method, LATER)}

    @property
    def _task(self) -> ExampleTask:
        found = TASKS[self.task]
        assert isinstance(found, ExampleTask)
        return found

    def open(self, spec: str, split: str) -> Any:
        """One split of the task's examples."""
        examples = open_examples(spec, annotation(self._task), split, self.images)
        require_examples(self.task, examples, self._task.kind, self._task.pictures)
        return examples

    def texts(self, source: Any) -> list[str]:
        """What examples say; only asked for where the run that is tuned has no tokeniser."""
        return [source.example(number).text for number in range(min(len(source), 20_000))]

    def info(self, source: Any, tokenizer: Tokenizer) -> DataInfo:
        """The words, and what the head chooses among.

        Raises:
            ConfigError: for verdicts by other names, or in another order, than the data number them.
        """
        answers = self.method.answers or self._task.answers(source)
        if source.labels and tuple(answers) != tuple(source.labels):
            raise ConfigError(
                f"--method.answers is {', '.join(answers)}; the verdicts of {source.name} are {', '.join(source.labels)}, in this "
                "order: leave it out"
            )
        return DataInfo(
            vocabulary=len(tokenizer),
            context=tokenizer.context,
            samples=len(source),
            special=tokenizer.special,
            answers=answers,
        )

    def loader(self, source: Any, tokenizer: Tokenizer, info: DataInfo, world: World) -> ExampleLoader:
        """Batches of examples."""
        return example_loader(self, source, tokenizer, self._task.wanted(info.answers), world)

    def build(self, info: DataInfo) -> Method:
        """The run's method at this recipe's picture size, and a new head on it.

        Raises:
            ConfigError: if the method cannot be tuned so: it reads no text, or not pictures of this size.
        """
        if not self.init:
            raise ConfigError("there is nothing to be tuned; name a run: multiway finetune RUN")
        under = load(self.init).method.starting
        config = at_size(under.config, self.view.size)
        task = self._task
        # The method's own form for two pictures is a method beside it, which makes the additional parts of those of one.
        own = task.pictures == 2 and self.method.two == "own"
        name = under.two_pictures or under.name if own else under.name
        filled = replace(self.method, method=name, of=to_json(config), kind=task.kind, pictures=task.pictures).resolve(
            info
        )
        try:
            return FineTune(filled)
        except ConfigError:
            raise
        except ValueError as error:  # a part that cannot be built for these pictures
            raise ConfigError(f"{self.init} cannot be tuned with pictures of {self.view.size}: {error}") from error


def example_loader(recipe: Recipe, source: Any, tokenizer: Tokenizer, wanted: Wanted, world: World) -> ExampleLoader:
    """Batches of examples, as a recipe's settings and view have them."""
    settings = recipe.settings
    if settings.shuffle != "global" or settings.draft:
        given = "--shuffle shards" if settings.shuffle != "global" else "--draft"
        raise ConfigError(f"{given} is for pictures with captions; examples of {source.name} do without: leave it out")
    return ExampleLoader(
        source, recipe.view, tokenizer, wanted, settings.batch, settings.seed, world.rank, world.size, settings.workers
    )


def headed() -> list[str]:
    """Names of the tasks that a head is tuned for: those that need what a head gives."""
    return [name for name, each in TASKS.items() if isinstance(each, ExampleTask) and {*HEADS.values()} & {*each.needs}]


def at_size(config: Any, size: int) -> Any:
    """A method's config for pictures of another side; learned positions are interpolated when weights are taken over.

    Raises:
        ConfigError: if it cannot be.
    """
    if picture_size(config) in (None, size):  # it takes any, or reads none
        return config
    try:
        if hasattr(config, "image"):
            return replace(config, image=replace(config.image, size=size))
        if (codes := getattr(config, "tokeniser", None)) is not None:
            # A tokeniser of pictures has nothing to do here, but its grid has to be the method's (BEiT-3).
            own = replace(codes.image, size=codes.image.size * size // config.size)
            return replace(config, size=size, tokeniser=replace(codes, image=own))
        return replace(config, size=size)
    except ValueError as error:
        raise ConfigError(f"pictures of {size} do not fit this run: {error}") from error


def finetune(run: str, task: str = "vqa") -> FinetuneRecipe:
    """Fine-tuning of a run for a task: pictures drawn as the run drew them, on scenes unless other data are named.

    A few hundred steps at a third of a small recipe's rate; published models are tuned at 1e-5 to 5e-5 (`--lr`). The run is
    measured on val at its end; test is for `multiway eval`.
    """
    view = replace(load(run).processor.view, augment="none")
    if task in TASKS and getattr(TASKS[task], "kind", "") == "pointed":
        view = replace(view, crop="squash")  # boxes are shares of the whole picture
    optimiser = OptimiserSpec(weight_decay=0.05, warmup=0.1)
    return FinetuneRecipe(
        settings=Settings(steps=400, batch=64, lr=3e-4, optimiser=optimiser),
        data=WORLD,
        init=run,
        view=view,
        task=task,
        evaluate=(f"{task}=@val",) if task in headed() else (),
        best=getattr(TASKS.get(task), "best", "accuracy"),
    )
