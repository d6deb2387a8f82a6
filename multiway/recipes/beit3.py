"""BEiT-3's recipes: masked data modelling, and what is tuned from it.

multiway train clip --data scenes:easy,objects=1-3 --view.mean 1 1 1 --view.std 0.5 0.5 0.5 --out runs/teacher
multiway train vqkd --teacher runs/teacher --out runs/codes
multiway train beit3 --codes runs/codes --out runs/a
multiway train beit3-retrieval --init runs/a --out runs/b                  contrast: retrieval
multiway train beit3-captioning --init runs/a --out runs/c                 masked decoding: captions
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from multiway.batch import DataInfo, ViewSpec
from multiway.data.masking import Masking
from multiway.data.patch_masking import PatchMasking
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.beit3 import Beit3, Beit3Config
from multiway.methods.method import Method
from multiway.recipes.lent import visual_tokeniser
from multiway.recipes.recipe import Recipe
from multiway.recipes.world import WORLD, white_is_zero

__all__ = [
    "Beit3CaptioningRecipe",
    "Beit3Recipe",
    "Beit3RetrievalRecipe",
    "beit3",
    "beit3_captioning",
    "beit3_retrieval",
]

# Pictures alone, texts alone, pairs (section 2.2).
_WORDS, _PATCHES = (0.0, 0.15, 0.5), (0.4, 0.0, 0.4)


@dataclass(frozen=True)
class Beit3Recipe(Recipe):
    """Masked data modelling on pictures, texts and pairs.

    Attributes:
        codes: run of `vqkd` whose codes masked patches are guessed as.
    """

    name: ClassVar[str] = "beit3"
    method_name: ClassVar[str] = "beit3"

    codes: str = ""
    method: Beit3Config = Beit3Config()

    def lenders(self) -> tuple[str, ...]:
        """The image tokeniser's run."""
        return (self.codes,) if self.codes else ()

    def build(self, info: DataInfo) -> Method:
        """The method with the image tokeniser's tensors in it."""
        tokeniser = visual_tokeniser(self.codes, "--codes", self.view)
        method = Beit3(replace(self.method, tokeniser=tokeniser.config).resolve(info))
        method.tokeniser.load_state_dict(tokeniser.state_dict())
        return method


@dataclass(frozen=True)
class Beit3RetrievalRecipe(Recipe):
    """A dual encoder tuned from masked data modelling."""

    name: ClassVar[str] = "beit3-retrieval"
    method_name: ClassVar[str] = "beit3"

    # The head of masked words is not used, and the shared space begins at random.
    init_except: tuple[str, ...] = ("word_head", "_projection", "log_scale")
    method: Beit3Config = Beit3Config(objective="itc")


@dataclass(frozen=True)
class Beit3CaptioningRecipe(Recipe):
    """A captioner tuned from masked data modelling."""

    name: ClassVar[str] = "beit3-captioning"
    method_name: ClassVar[str] = "beit3"

    method: Beit3Config = Beit3Config(objective="caption")


def _common(preset: str, objective: Literal["mdm", "itc", "caption"]) -> dict[str, object]:
    method = replace(Beit3Config.preset(preset), objective=objective)
    tiny = preset == "tiny"
    return {
        "preset": preset,
        "method": method,
        "data": WORLD if tiny else "",
        "view": white_is_zero(method.size) if tiny else ViewSpec(method.size, "squash", augment="resized_crop"),
        "tokenizer": TokenizerSpec(vocabulary=512, context=40)
        if tiny
        else TokenizerSpec(vocabulary=64_010, context=64),
    }


def beit3(preset: str = "tiny") -> Beit3Recipe:
    """BEiT-3's pre-training at a preset.

    `tiny`: scenes of one to three plain things; docs/methods/beit3.md has its scores, machine and date.

    `base`, `large`, `giant`: the paper's hyper-parameters (section 2.3): batch 6,144 in thirds, 1 M steps, peak 1e-3, weight
    decay 0.05. Nobody here has run them.
    """
    patch = Beit3Config.preset(preset).patch
    if preset == "tiny":
        settings = Settings(steps=1000, batch=96, lr=1e-3, optimiser=OptimiserSpec(weight_decay=0.05, warmup=0.05))
        hidden = PatchMasking(patch=patch, least=4, ratios=_PATCHES)
    else:
        optimiser = OptimiserSpec(weight_decay=0.05, betas=(0.9, 0.98), warmup=10_000)
        settings = Settings(
            steps=1_000_000, batch=6144, lr=1e-3, checkpoint_every=1000, log_every=50, optimiser=optimiser
        )
        hidden = PatchMasking(patch=patch, ratios=_PATCHES)
    return Beit3Recipe(
        settings=settings,
        masking=Masking(ratios=_WORDS, least=1, whole_words=False),
        patches=hidden,
        **_common(preset, "mdm"),  # type: ignore[arg-type]
    )


def beit3_retrieval(preset: str = "tiny") -> Beit3RetrievalRecipe:
    """Retrieval tuning by contrast (section 3.1): start it with `--init RUN`."""
    optimiser = OptimiserSpec(weight_decay=0.05, warmup=0.1)
    settings = Settings(steps=400, batch=64, lr=5e-4, optimiser=optimiser)
    if preset != "tiny":
        settings = replace(settings, steps=20_000, batch=3072, lr=2e-4)
    return Beit3RetrievalRecipe(settings=settings, **_common(preset, "itc"))  # type: ignore[arg-type]


def beit3_captioning(preset: str = "tiny") -> Beit3CaptioningRecipe:
    """Captioning by masked words (section 3.1; released: 70 % masked, labels smoothed by 0.1): start it with `--init RUN`."""
    optimiser = OptimiserSpec(weight_decay=0.05, warmup=0.1)
    settings = Settings(steps=400, batch=64, lr=5e-4, optimiser=optimiser)
    if preset != "tiny":
        settings = replace(settings, steps=20_000, batch=256, lr=4e-5)
    masking = Masking(ratio=0.7, whole_words=False, least=1, replaced=1.0, random=0.0)
    return Beit3CaptioningRecipe(settings=settings, masking=masking, **_common(preset, "caption"))  # type: ignore[arg-type]
