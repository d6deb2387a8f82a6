"""What 8-bit weights cost, on the task that the model was made for: the same task before and after, on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multiway.abilities import abilities_of
from multiway.config import ConfigError
from multiway.data.annotated.files import ExampleFiles
from multiway.data.annotated.open import names_examples, open_examples, parse_examples
from multiway.data.open import open_source, splits_of
from multiway.data.source import DataError
from multiway.data.spec import is_mixed, parse
from multiway.data.subset import Subset
from multiway.engine.run import Run, RunError
from multiway.hub.model import Model
from multiway.tasks import TASKS
from multiway.tasks.example_task import ExampleTask, annotation
from multiway.tasks.frozen import teach
from multiway.tasks.task import Task

__all__ = ["Evaluation", "Origin", "losses"]

_USUAL = ("retrieval", "matching", "captions")  # where a run does not say what it is measured on
_SHOWN = 8  # pictures and texts that graphs are checked with


@dataclass(frozen=True)
class Evaluation:
    """A task on a split."""

    task: Task
    source: Any


@dataclass(frozen=True)
class Origin:
    """Where real pictures come from, and what the model is measured on: what was asked for, else what its run says.

    Attributes:
        config: of the run; empty where the model came from elsewhere.
        data: `name[:path][@split]`; empty for the run's own, and without a run for emoji.
        tasks: names; none for the run's own, else retrieval, matching and captions, as far as the model can.
        rows: of the split, so many, evenly spread; 0 for all.
    """

    config: Mapping[str, Any]
    data: str = ""
    tasks: tuple[str, ...] = ()
    rows: int = 0

    @classmethod
    def of(cls, source: str, data: str, tasks: tuple[str, ...], rows: int) -> Origin:
        """Of a model as it was named.

        Raises:
            ConfigError: for a name of no task.
        """
        if unknown := [name for name in tasks if name not in TASKS]:
            raise ConfigError(f"there is no task {', '.join(unknown)}; there are: {', '.join(TASKS)}")
        path = Path(source)
        try:
            config = Run.read(path if path.is_dir() else path.parent).config
        except RunError:
            config = {}
        return cls(config, data, tasks, rows)

    def open(self, split: str = "") -> Any:
        """The rows, held out from training where there are any."""
        spec = self.data or str(self.config.get("data", "")) or "emoji@composition"
        own = not self.data and bool(self.config)
        if is_mixed(spec):
            spec = spec.partition("+")[0].partition("*")[0]
        images = self.config.get("images", "") if own else ""
        columns = [self.config.get(f"{side}_column") or None if own else None for side in ("image", "caption")]
        if split or "@" not in spec:
            there = splits_of(spec, images, *columns)
            split = split or next((name for name in there if name != "train"), "train")
            spec = str(replace(parse(spec), split=split))
        source = open_source(spec, images, "test", *columns)
        return Subset(source, self.rows) if self.rows else source

    def _asked(self, task: Task, split: str = "") -> Any:
        """The same for a task: examples, where it takes those."""
        if not isinstance(task, ExampleTask):
            return self.open(split)
        parsed = parse_examples(self.data or str(self.config.get("data", "")))
        spec = str(replace(parsed, split=split or parsed.split or "val"))
        found = open_examples(spec, annotation(task), images="" if self.data else self.config.get("images", ""))
        if not 0 < self.rows < len(found):
            return found
        some = [found.example(number * len(found) // self.rows) for number in range(self.rows)]
        return ExampleFiles(found.name, found.split, found.kind, some, found.pictures, found.labels)

    def examples(self) -> tuple[list[Any], list[str]]:
        """A few pictures, and a text of each."""
        task = TASKS.get(str(self.config.get("task", "")))
        if isinstance(task, ExampleTask) and names_examples(self.data or str(self.config.get("data", ""))):
            asked = self._asked(task)
            some = [asked.example(number) for number in range(min(_SHOWN, len(asked)))]
            return [asked.pictures.image(each.pictures[0]) for each in some], [each.text for each in some]
        source = self.open()
        rows = range(min(_SHOWN, len(source)))
        texts = [caption for row in rows for caption in source.row(row).captions[:1]]
        return [source.image(row) for row in rows], texts

    def evaluations(self, small: Model) -> list[Evaluation]:
        """What can be measured of the graphs that were written."""
        able = set(abilities_of(small))
        if self.tasks:
            return [Evaluation(TASKS[name], self._asked(TASKS[name])) for name in self.tasks]
        found = []
        for entry in self.config.get("evaluate", ()) if not self.data else ():
            name, _, spec = str(entry).partition("=")
            if name in TASKS and set(TASKS[name].needs) <= able and spec.startswith("@") and spec != "@held-out":
                found.append(Evaluation(TASKS[name], self._asked(TASKS[name], spec[1:])))
        if not found:
            found = [Evaluation(TASKS[name], self.open()) for name in _USUAL if set(TASKS[name].needs) <= able]
        return found


def losses(
    model: Model, small: Model, evaluations: Sequence[Evaluation], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Every metric with PyTorch's weights and with those of 8 bits.

    Returns:
        `{"task", "data", "metric", "fp32", "int8", "low", "high", "n", "chance"}` each; low and high are the 95 % interval in fp32.
    """
    found = []
    for each in evaluations:
        spec = f"{Path(each.source.name).name}@{each.source.split}"
        try:
            task = teach(each.task, spec, lambda data: open_source(data, default_split="train"))
            before, after = (task.run(one, each.source) for one in (model, small))
        except DataError as error:
            say(f"{each.task.name} on {spec} is not measured: {error}")
            continue
        for name, metric in before.metrics.items():
            row = {
                "task": each.task.name,
                "data": spec,
                "metric": name,
                "fp32": metric.value,
                "int8": after.metrics[name].value,
            }
            found.append(row | {"low": metric.low, "high": metric.high, "n": metric.n, "chance": metric.chance})
    return found
