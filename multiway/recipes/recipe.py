"""A recipe: what to run. Typed, named, and a function of a preset; the command line edits its fields.

`multiway train clip --preset tiny --data emoji --steps 400` takes the recipe `clip("tiny")` and changes two of its
fields. What comes out is written whole into the run folder, so a run never depends on a default that changes later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import tyro

from multiway.batch import DataInfo, ViewSpec
from multiway.config import LATER, ConfigError, identity_json
from multiway.data.curriculum import Pacing
from multiway.data.loader import Loader
from multiway.data.masking import Masking
from multiway.data.open import open_mixture, open_source
from multiway.data.order import Shuffle
from multiway.data.patch_masking import PatchMasking
from multiway.data.source import captions_to_learn
from multiway.data.spec import is_mixed
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.data.views import ViewsSpec
from multiway.engine.settings import OPERATIONAL, Settings
from multiway.methods import Method, method_class
from multiway.tasks import TASKS
from multiway.world import World

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """What every recipe has; a method's recipe adds `method`, typed.

    Attributes:
        settings: of the loop; on the command line without a prefix: `--steps`, `--lr`, ...
        preset: size of the method.
        data: `name[:path][@split]`, a caption file, a folder of pictures, or a pattern of shards; or several of these, drawn from by
            weight: `emoji*1 + scenes:easy*3`.
        images: folder that a caption file's paths are relative to.
        image_column, caption_column: of a caption file, where their names are unusual.
        evaluate: `task=data@split` measured during training and at its end; `@split` alone means this recipe's data, and
            `@held-out` the first split of them that is not trained on.
        best: metric by which the best checkpoint is chosen.
        init: run, weights file or `hf:` model to start from, with its tokeniser unless `tokenizer.path` names another; or one
            for each of some parts of the method, `image=runs/clip,text=runs/bert`, with the tokeniser of the words'.
        init_context: tokens of a text, where these are to be others than `init`'s tokeniser has: its positions are interpolated to as
            many of `method.text.context`.
        init_except: regular expressions of tensors that start at random or stay unused all the same.
        out: run folder; an existing one is resumed.
        dry_run: show the model, the first batch and the chance values instead of training.
        view: how pictures are drawn.
        tokenizer: which tokeniser.
        masking: which words are masked; none by default.
        patches: which patches are masked; none by default.
        curriculum: by what rows are ranked from easy to hard: `length` of their captions, or a file of scores (`data/scores.py`);
            empty for none.
        pacing: how fast the curriculum goes.
    """

    name: ClassVar[str] = ""
    method_name: ClassVar[str] = ""
    over_ranks: ClassVar[bool] = False  # whether batch norms take their statistics over the rows of all ranks

    settings: Annotated[Settings, tyro.conf.arg(name="")]
    preset: str = "tiny"
    data: str = "emoji"
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    evaluate: tuple[str, ...] = ()
    best: str = "mean/R@1"
    init: str = ""
    init_except: tuple[str, ...] = ()
    out: str = ""
    dry_run: bool = False
    view: ViewSpec = ViewSpec()
    tokenizer: TokenizerSpec = TokenizerSpec()
    masking: Masking = Masking()
    patches: PatchMasking = PatchMasking()
    method: Any = None
    init_context: int = field(default=0, metadata=LATER)
    curriculum: str = field(default="", metadata=LATER)
    pacing: Pacing = field(default=Pacing(), metadata=LATER)

    def __post_init__(self) -> None:
        # A misspelt task would else be found out when the first evaluation is due, hours into a run.
        for entry in self.evaluate:
            task, _, spec = entry.partition("=")
            if task not in TASKS or not spec:
                raise ConfigError(
                    f"evaluate is {entry!r}; expected task=data@split or task=@split, with a task of {', '.join(TASKS)}"
                )
        if self.pacing != Pacing() and not self.curriculum:
            raise ConfigError(
                f"{self.pacing} is of a curriculum, and there is none; add --curriculum length, or a file of scores"
            )
        if self.init_context and not self.init:
            raise ConfigError(
                f"init_context is {self.init_context} and there is no --init; without one, tokenizer.context says it"
            )

    def open(self, spec: str, split: str) -> Any:
        """The data: rows of pictures and captions, from this recipe's columns and folder; several sources for training alone."""
        opener = open_mixture if split == "train" and is_mixed(spec) else open_source
        return opener(
            spec,
            images=self.images,
            default_split=split,
            image_column=self.image_column or None,
            caption_column=self.caption_column or None,
        )

    @property
    def drawn(self) -> ViewsSpec | None:
        """The views that the method learns from, where these are several or of a kind of their own; None for `view` alone."""
        return None

    def tokeniser(self, source: Any) -> Tokenizer | None:
        """The tokeniser of a run that does not begin from another with one; None where nothing is read."""
        return Tokenizer.open(self.tokenizer, self.texts(source))

    def texts(self, source: Any) -> list[str]:
        """What a tokeniser is learned from: every caption, or what an endless source offers instead."""
        return captions_to_learn(source)

    def info(self, source: Any, tokenizer: Tokenizer) -> DataInfo:
        """What a method must know of the data."""
        return DataInfo(
            vocabulary=len(tokenizer),
            context=tokenizer.context,
            samples=len(source),
            classes=len(source.classes),
            special=tokenizer.special,
        )

    def loader(self, source: Any, tokenizer: Tokenizer, info: DataInfo, world: World) -> Any:
        """Training batches."""
        settings = self.settings
        return Loader(
            source,
            self.view,
            tokenizer,
            settings.batch,
            settings.seed,
            world.rank,
            world.size,
            settings.workers,
            self.masking,
            self.patches,
            **self.loading,
        )

    @property
    def loading(self) -> dict[str, Any]:
        """What every loader of pictures and captions is told besides: how rows are shuffled, and how pictures are decoded."""
        settings = self.settings
        return {"shuffle": Shuffle(settings.shuffle, settings.shuffle_window), "reduce": settings.draft}

    def build(self, info: DataInfo) -> Method:
        """The method, its open sizes filled in from the data."""
        return method_class(self.method_name)(self.method.resolve(info))  # type: ignore[call-arg]

    def stages(self) -> tuple[tuple[str, Recipe], ...]:
        """(name, recipe) of the runs that this recipe consists of, in order (`stages.py`); most are one run, themselves."""
        return (("", self),)

    def lenders(self) -> tuple[str, ...]:
        """Runs whose tensors `build` copies into the method; their hash becomes part of the run's identity."""
        return ()

    def identity(self) -> dict[str, Any]:
        """The recipe as JSON, as it is kept in the run folder: horizon made explicit; left out are `out`, `dry_run`, and fields that
        older runs lack while they have their default (`config.LATER`), so that those are still what they were."""
        value = identity_json(self)
        value["settings"]["horizon"] = self.settings.end_of_schedule
        for passing in ("out", "dry_run"):
            del value[passing]
        return {"recipe": self.name, **value}

    @staticmethod
    def operational() -> set[str]:
        """Dotted paths of fields in which two starts of one run may differ."""
        return {f"settings.{name}" for name in OPERATIONAL} | {"evaluate", "best", "images"}
