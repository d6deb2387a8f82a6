"""A fused model with random weights over a few scenes, one that counts what it encodes, and a run of two steps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from multiway.abilities import Encoded, abilities_of
from multiway.batch import DataInfo, ViewSpec
from multiway.cli.train import parse
from multiway.data.processor import Processor
from multiway.data.scenes.source import Scenes
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.model import Model
from multiway.methods.albef import Albef, AlbefConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.recipes.training import run_recipe
from multiway.workflows.report import write_report
from multiway.world import World

CONFIG = AlbefConfig(
    image=VisionConfig(size=16, patch=8, width=24, layers=1, heads=2),
    text=TextConfig(width=32, layers=1, heads=2, causal=False, pool="class"),
    fusion_layers=1,
    embedding=16,
    queue=0,
)


SCENES = ["--data", "scenes:easy,gallery=16,samples=64", "--tokenizer.context", "32"]
FUSED = [
    "--view.size", "16", "--method.image.size", "16", "--method.image.width", "32", "--method.image.layers", "1",
    "--method.image.heads", "2", "--method.text.width", "32", "--method.text.layers", "1", "--method.text.heads", "2",
    "--method.fusion-layers", "1",
]  # fmt: skip


class Counting:
    """A model that counts what it is asked to encode."""

    def __init__(self, model: Model) -> None:
        self.model, self.pictures, self.texts = model, 0, 0

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def abilities(self) -> tuple[str, ...]:
        return abilities_of(self.model)

    def encode_image(self, images, tokens: bool = False) -> Encoded:
        self.pictures += len(images)
        return self.model.encode_image(images, tokens)

    def encode_text(self, texts, tokens: bool = False) -> Encoded:
        self.texts += len(texts)
        return self.model.encode_text(texts, tokens)


@pytest.fixture
def counting() -> type[Counting]:
    return Counting


@pytest.fixture(scope="session")
def source() -> Scenes:
    return Scenes.open("val", "easy,gallery=24")


@pytest.fixture(scope="session")
def model(source: Scenes) -> Model:
    words = Tokenizer.train([c for i in range(24) for c in source.row(i).captions], TokenizerSpec(400, 40))
    torch.manual_seed(0)
    method = Albef(CONFIG.resolve(DataInfo(vocabulary=len(words), context=40)))
    with torch.no_grad():  # at the usual start every pair gets the same odds
        for parameter in [*method.student.parameters(), *method.match_head.parameters()]:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Model(method, Processor(ViewSpec(size=16, crop="squash"), words))


def _trained(recipe: str, out: Path, *more: str) -> str:
    """The page of a run of two steps."""
    quick = ["--steps", "2", "--batch", "8", "--device", "cpu", "--precision", "fp32", "--threads", "1"]
    run_recipe(parse([recipe, *quick, *more, "--out", str(out)]), World())
    return write_report(out).read_text(encoding="utf-8")


@pytest.fixture
def trained() -> Callable[..., str]:
    return _trained


@pytest.fixture
def small() -> dict[str, list[str]]:
    """Options of small runs: of scenes as data, and of a fused method's sizes."""
    return {"scenes": SCENES, "fused": FUSED}


@pytest.fixture(scope="session")
def fused_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fused") / "run"
    _trained("albef", out, *SCENES, *FUSED)
    return out
