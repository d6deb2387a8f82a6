"""VLMo's recipes: pairs alone on a laptop, and the paper's size.

multiway train vlmo --out runs/a                                   pairs alone: scenes of one to three things; two CPU cores
multiway train vlmo-stages --codes runs/codes --out runs/b         pictures, then texts, then pairs: three runs in runs/b
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from multiway.batch import DataInfo, ViewSpec
from multiway.config import ConfigError
from multiway.data.masking import Masking
from multiway.data.patch_masking import PatchMasking
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.method import Method
from multiway.methods.vlmo import Vlmo, VlmoConfig
from multiway.recipes.albef import WORLD
from multiway.recipes.lent import visual_tokeniser
from multiway.recipes.recipe import Recipe

__all__ = ["VlmoRecipe", "VlmoStagesRecipe", "vlmo", "vlmo_stages"]


@dataclass(frozen=True)
class VlmoRecipe(Recipe):
    """One transformer with an expert per modality: dual encoder and fused encoder.

    Attributes:
        codes: run of `vqkd` whose codes masked patches are guessed as; for the stage `vision` alone.
    """

    name: ClassVar[str] = "vlmo"
    method_name: ClassVar[str] = "vlmo"

    codes: str = ""
    method: VlmoConfig = VlmoConfig()

    def lenders(self) -> tuple[str, ...]:
        """The image tokeniser's run, in the stage that needs one."""
        return (self.codes,) if self.codes else ()

    def build(self, info: DataInfo) -> Method:
        """The method, in the stage `vision` with the image tokeniser's tensors in it."""
        if self.method.stage != "vision":
            return super().build(info)
        tokeniser = visual_tokeniser(self.codes, "--codes")
        method = Vlmo(replace(self.method, tokeniser=tokeniser.config).resolve(info))
        method.tokeniser.load_state_dict(tokeniser.state_dict())
        return method

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masking.ratio <= 0 and self.method.stage != "vision":
            raise ConfigError(f"masking.ratio is {self.masking.ratio}; VLMo guesses masked words and needs one above 0")


def vlmo(preset: str = "tiny") -> VlmoRecipe:
    """VLMo at a preset.

    `tiny`: scenes of one to three plain things; docs/methods/vlmo.md has its scores, machine and date.

    `base`, `base-plus`, `large`: the paper's sizes and hyper-parameters (section 4.1 and the released configuration): batch
    1024, 200,000 steps, peak 2e-4 (large: 5e-5), weight decay 0.01, 224 pixels. Nobody here has run them.
    """
    method = VlmoConfig.preset(preset)
    if preset == "tiny":
        optimiser = OptimiserSpec(weight_decay=0.05, warmup=0.05)
        return VlmoRecipe(
            settings=Settings(steps=900, batch=64, lr=1e-3, optimiser=optimiser),
            preset=preset,
            data=WORLD,
            view=ViewSpec(size=method.size, crop="squash"),
            tokenizer=TokenizerSpec(vocabulary=512, context=40),
            masking=Masking(ratio=0.3, least=1),
            method=method,
        )
    rate = 5e-5 if preset == "large" else 2e-4
    optimiser = OptimiserSpec(weight_decay=0.01, betas=(0.9, 0.98), warmup=2500, decay="linear")
    return VlmoRecipe(
        settings=Settings(steps=200_000, batch=1024, lr=rate, checkpoint_every=1000, log_every=50, optimiser=optimiser),
        preset=preset,
        data="",
        view=ViewSpec(size=224, crop="squash", augment="randaugment"),
        tokenizer=TokenizerSpec(vocabulary=30522, context=40),
        masking=Masking(ratio=0.15),
        method=method,
    )


Order = Literal["vision-language", "language-vision", "pairs"]
Stage = Literal["vision", "language", "pairs"]
_ORDERS: dict[Order, tuple[Stage, ...]] = {
    "vision-language": ("vision", "language"),
    "language-vision": ("language", "vision"),
    "pairs": (),
}


def _fields(recipe: VlmoRecipe) -> dict[str, Any]:
    """What the recipes of all stages share."""
    return {each.name: getattr(recipe, each.name) for each in fields(VlmoRecipe)}


@dataclass(frozen=True)
class VlmoStagesRecipe(VlmoRecipe):
    """VLMo's pre-training in stages (section 3.3): each is a run of its own in the folder, begun from the one before.

    Attributes:
        order: `vision-language` is the paper: pictures first, then texts with all that pictures trained frozen;
            `language-vision` exchanges them (the paper reports it as worse); `pairs` leaves both out.
        first_steps, second_steps: of the stages before the pairs.
        frozen: whether the second stage leaves attention and the first one's experts as they are.
    """

    name: ClassVar[str] = "vlmo-stages"

    order: Order = "vision-language"
    first_steps: int = 300
    second_steps: int = 300
    frozen: bool = True

    def stages(self) -> tuple[tuple[str, Recipe], ...]:
        """The runs, in order, ready to be run."""
        before, found = self.init, []
        for place, kind in enumerate((*_ORDERS[self.order], "pairs")):
            name = f"{place + 1}-{kind}"
            part = VlmoRecipe(**_fields(self))
            part = replace(part, out=str(Path(self.out) / name), init=before)
            if kind != "pairs":
                steps = (self.first_steps, self.second_steps)[place]
                rules = _TRAINED[kind, place if self.frozen else 0]
                optimiser = replace(part.settings.optimiser, rules=rules)
                part = replace(
                    part,
                    settings=replace(part.settings, steps=steps, optimiser=optimiser),
                    method=replace(part.method, stage=kind),
                    evaluate=(),
                )
            if kind == "vision":
                part = replace(
                    part, patches=PatchMasking(0.4, part.method.patch, least=4 if part.preset == "tiny" else 16)
                )
            else:
                part = replace(part, codes="")
            found.append((name, part))
            before = part.out
        return tuple(found)


# (stage, place) -> what is trained, as learning-rate rules: all else is frozen. In the second place attention and its norms
# stay as the first stage left them (the released code's lists), and only what is new is trained.
_NEW = {
    "vision": r"pictures\.|types|mlp(_norm)?\.experts\.vision|positions\.table|code_head|blocks\.norm",
    "language": r"words\.|types|mlp(_norm)?\.experts\.language|positions\.table|word_head|blocks\.norm",
}
_ATTENTION = r"attention_norm|projection\.module|out\.module|residual"
_TRAINED = {
    (kind, place): ((f"{new}|{_ATTENTION}" if place == 0 else new, 1.0), (".", 0.0))
    for kind, new in _NEW.items()
    for place in (0, 1)
}


def vlmo_stages(preset: str = "tiny") -> VlmoStagesRecipe:
    """VLMo in stages at a preset: see `vlmo`."""
    pairs = vlmo(preset)
    steps = (300, 300) if preset == "tiny" else (500_000, 500_000)
    return VlmoStagesRecipe(**_fields(pairs), first_steps=steps[0], second_steps=steps[1])
