"""CLIPA's recipe: CLIP on small pictures and short captions, then for a short while on full ones.

X. Li, Z. Wang and C. Xie, An Inverse Scaling Law for CLIP Training, NeurIPS 2023, arXiv 2305.07017: the larger a model, the fewer
tokens of picture and text it can be trained on without loss. Pictures are made smaller, which loses less than leaving patches out;
captions are cut (`shorten`); a short tuning at full size follows. Between the two, positions are interpolated.

multiway train clipa --out runs/a                                  runs/a/1-short, then runs/a/2-full
multiway train clipa --shorten block --short-context 6 --out runs/b
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from multiway.config import ConfigError
from multiway.nn.vit import VisionConfig
from multiway.recipes.clip import ClipRecipe, clip
from multiway.recipes.recipe import Recipe
from multiway.recipes.stages import Stage, as_recipe, changed, derived, runs

__all__ = ["ClipaRecipe", "clipa"]


@dataclass(frozen=True)
class ClipaRecipe(ClipRecipe):
    """CLIP on less of each pair, and a short run on all of it. `view.size`, `tokenizer.context` and `shorten` are as ever; the
    first stage has its own size and context.

    Attributes:
        short_size: side of the first stage's pictures, in pixels.
        short_context: tokens of its captions.
        tune_steps, tune_batch, tune_lr: of the second stage.
    """

    name: ClassVar[str] = "clipa"

    short_size: int = 32
    short_context: int = 8
    tune_steps: int = 60
    tune_batch: int = 256
    tune_lr: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.method.image, VisionConfig) or self.short_size % self.method.image.patch:
            raise ConfigError(
                f"short_size is {self.short_size} and the network {self.method.image}; expected a ViT whose patches divide the size"
            )

    def stages(self) -> tuple[tuple[str, Recipe], ...]:
        """The two runs."""
        short = {
            "view.size": self.short_size,
            "method.image.size": self.short_size,
            "tokenizer.context": self.short_context,
            "method.text.context": self.short_context,
        }
        if self.init:  # its tokeniser, cut to this
            short["init_context"] = self.short_context
        full: dict[str, Any] = {
            "settings.steps": self.tune_steps,
            "settings.horizon": 0,
            "settings.batch": self.tune_batch,
            "settings.lr": self.tune_lr,
            "method.text.context": self.tokenizer.context,
            "init_context": self.tokenizer.context,
        }
        return runs(as_recipe(self, ClipRecipe), (Stage("short", short), Stage("full", full)))


def clipa(preset: str = "tiny") -> ClipaRecipe:
    """CLIPA at a preset of CLIP's.

    `tiny`: docs/thrifty-training.md has its scores, machine and date.

    `vit-b-16`, `vit-l-14`: as the authors' configurations have their B/16, L/16 and H/14: 12.8 G samples of 64 pixels (of patches of
    14: 84) at 8e-6 x batch / 256, then 131 M of 224 pixels and 32 tokens at a tenth of that rate; fixed positions of patches; weight
    decay 0.2, beta2 0.95. Captions have 32 tokens throughout for B, 8 first for L (theirs for H). Their largest run prefers nouns,
    which needs a tagger; here captions are cut in blocks. Nobody here has run them.

    Raises:
        KeyError: for another preset.
    """
    base = replace(clip(preset), shorten="block")
    if preset == "tiny":
        return derived(base, ClipaRecipe)
    if preset not in ("vit-b-16", "vit-l-14"):
        raise KeyError(f"CLIPA has no preset `{preset}`; there are: tiny, vit-b-16, vit-l-14")
    batch, tune = 65_536, 32_768
    optimiser = replace(base.settings.optimiser, betas=(0.9, 0.95), warmup=52_428_800 / batch)
    large = preset == "vit-l-14"
    changes = {
        "settings.steps": 12_811_670_000 // batch,
        "settings.batch": batch,
        "settings.lr": 8e-6 * batch / 256,
        "settings.optimiser": optimiser,
        "tokenizer.context": 32,
        "method.text.context": 32,
        "method.image.positions": "sincos",
    }
    return derived(
        changed(base, changes),
        ClipaRecipe,
        short_size=84 if large else 64,
        short_context=8 if large else 32,
        tune_steps=131_072_000 // tune,
        tune_batch=tune,
        tune_lr=8e-7 * tune / 256,
    )
