"""VLMo's recipes: pairs alone on a laptop, and the paper's size.

multiway train vlmo --out runs/a                                   pairs alone: scenes of one to three things; two CPU cores
multiway train vlmo-stages --codes runs/codes --out runs/b         pictures, then texts, then pairs: three runs in runs/b
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from multiway.recipes.lent import visual_tokeniser
from multiway.recipes.recipe import Recipe
from multiway.recipes.stages import Stage, as_recipe, derived, runs
from multiway.recipes.world import WORLD, white_is_zero

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
        tokeniser = visual_tokeniser(self.codes, "--codes", self.view)
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
        # The temperature's own, slower rate, as for ALBEF.
        optimiser = OptimiserSpec(weight_decay=0.05, warmup=0.05, rules=(("log_scale", 0.1),))
        return VlmoRecipe(
            settings=Settings(steps=800, batch=64, lr=1e-3, optimiser=optimiser),
            preset=preset,
            data=WORLD,
            view=white_is_zero(method.size),
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


Kind = Literal["vision", "language", "pairs"]


@dataclass(frozen=True)
class VlmoStagesRecipe(VlmoRecipe):
    """VLMo's pre-training in stages (section 3.3): each is a run of its own in the folder, begun from the one before.

    Attributes:
        order: of the stages. The paper's: pictures, then texts, then pairs; texts first it reports as worse.
        frozen: stages in which attention and the other modalities' parts stay as they are. The paper's: texts, whose attention
            was trained on pictures.
        stage_steps: of each stage before the pairs.
    """

    name: ClassVar[str] = "vlmo-stages"

    order: tuple[Kind, ...] = ("vision", "language", "pairs")
    frozen: tuple[Kind, ...] = ("language",)
    stage_steps: int = 300

    def stages(self) -> tuple[tuple[str, Recipe], ...]:
        """The runs, in order, ready to be run."""
        return runs(as_recipe(self, VlmoRecipe), [Stage(kind, self._changes(kind)) for kind in self.order])

    def _changes(self, kind: Kind) -> dict[str, Any]:
        """What a stage has of its own."""
        found: dict[str, Any] = {} if kind == "vision" else {"codes": ""}
        if kind != "pairs":
            found |= {
                "settings.steps": self.stage_steps,
                "settings.optimiser.rules": _trained(kind, kind in self.frozen),
                "method.stage": kind,
                "evaluate": (),
            }
        if kind == "vision":
            least = 4 if self.preset == "tiny" else 16
            found["patches"] = PatchMasking(0.4, self.method.patch, least)
        return found


# What belongs to a modality alone (the released code's list for texts).
_OWN: dict[Kind, str] = {
    "vision": r"pictures\.|types|mlp(_norm)?\.experts\.(vision|shared)|positions\.table|code_head|blocks\.norm",
    "language": r"words\.|types|mlp(_norm)?\.experts\.(language|shared)|positions\.table|word_head|blocks\.norm",
}
_ATTENTION = r"attention_norm|projection\.module|out\.module|residual"


def _trained(kind: Kind, frozen: bool) -> tuple[tuple[str, float], ...]:
    """Learning-rate rules of a stage before the pairs: what is trained, and nothing else."""
    return ((_OWN[kind] if frozen else f"{_OWN[kind]}|{_ATTENTION}", 1.0), (".", 0.0))


def vlmo_stages(preset: str = "tiny") -> VlmoStagesRecipe:
    """VLMo in stages at a preset: see `vlmo`. `tiny` has the patches of 8 that the `tiny` image tokeniser names."""
    pairs = vlmo(preset)
    if preset == "tiny":
        pairs = replace(pairs, method=replace(pairs.method, patch=8))
    return derived(pairs, VlmoStagesRecipe, stage_steps=300 if preset == "tiny" else 500_000)
