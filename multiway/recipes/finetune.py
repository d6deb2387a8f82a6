"""Fine-tuning a trained run for a task.

multiway finetune runs/albef --task vqa --data scenes:easy,objects=1-3 --out runs/vqa
multiway finetune runs/albef --task nlvr2 --data nlvr2:data/nlvr2 --images data/nlvr2/images --view.size 384 --out runs/nlvr2
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
from multiway.methods.finetune import FineTune, FineTuneConfig, picture_size
from multiway.methods.method import Method
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD
from multiway.tasks import TASKS
from multiway.tasks.example_task import ExampleTask
from multiway.world import World

__all__ = ["FinetuneRecipe", "finetune"]


@dataclass(frozen=True)
class FinetuneRecipe(Recipe):
    """A trained run, a task's head on it, and the task's examples.

    Attributes:
        task: what it is tuned for.
    """

    name: ClassVar[str] = "finetune"
    method_name: ClassVar[str] = "finetune"

    task: str = "vqa"
    method: FineTuneConfig = FineTuneConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        able = [name for name, each in TASKS.items() if isinstance(each, ExampleTask)]
        if self.task not in able:
            raise ConfigError(f"nothing is tuned for the task {self.task!r}; there are: {', '.join(able)}")

    @property
    def _task(self) -> ExampleTask:
        found = TASKS[self.task]
        assert isinstance(found, ExampleTask)
        return found

    def open(self, spec: str, split: str) -> Any:
        """One split of the task's examples."""
        return open_examples(spec, self.task, split, self.images)

    def texts(self, source: Any) -> list[str]:
        """What examples say; only asked for where the run that is tuned has no tokeniser."""
        return [source.example(number).text for number in range(min(len(source), 20_000))]

    def info(self, source: Any, tokenizer: Tokenizer) -> DataInfo:
        """The words, and what the head chooses among."""
        return DataInfo(
            vocabulary=len(tokenizer),
            context=tokenizer.context,
            samples=len(source),
            special=tokenizer.special,
            answers=self._task.answers(source),
        )

    def loader(self, source: Any, tokenizer: Tokenizer, info: DataInfo, world: World) -> ExampleLoader:
        """Batches of examples."""
        settings = self.settings
        return ExampleLoader(
            source,
            self.view,
            tokenizer,
            self._task.wanted(self.method.answers or info.answers),
            settings.batch,
            settings.seed,
            world.rank,
            world.size,
            settings.workers,
        )

    def build(self, info: DataInfo) -> Method:
        """The run's method at this recipe's picture size, and a new head on it."""
        under = load(self.init).method.starting
        config = at_size(under.config, self.view.size)
        task = self._task
        filled = replace(
            self.method, method=under.name, of=to_json(config), kind=task.kind, pictures=task.pictures
        ).resolve(info)
        return FineTune(filled)


def at_size(config: Any, size: int) -> Any:
    """A method's config for pictures of another side; learned positions are interpolated when weights are taken over.

    Raises:
        ConfigError: if the patches do not divide it.
    """
    if picture_size(config) == size:
        return config
    try:
        if hasattr(config, "image"):
            return replace(config, image=replace(config.image, size=size))
        return replace(config, size=size)
    except ValueError as error:
        raise ConfigError(f"pictures of {size} do not fit this run: {error}") from error


def finetune(run: str, task: str = "vqa") -> FinetuneRecipe:
    """Fine-tuning of a run for a task: pictures drawn as the run drew them, on scenes unless other data are named.

    A few hundred steps at a third of a small recipe's rate; published models are tuned at 1e-5 to 5e-5 (`--lr`).
    """
    model = load(run)
    optimiser = OptimiserSpec(weight_decay=0.05, warmup=0.1)
    return FinetuneRecipe(
        settings=Settings(steps=400, batch=64, lr=3e-4, optimiser=optimiser),
        data=WORLD,
        init=run,
        view=replace(model.processor.view, augment="none"),
        task=task,
        evaluate=(f"{task}=@test",) if task in TASKS else (),
        best=getattr(TASKS.get(task), "best", "accuracy"),
    )
