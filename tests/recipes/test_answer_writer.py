"""From a run to one that writes answers: built, batched, and spelt as the run's tokeniser has it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multiway.batch import DataInfo, ViewSpec
from multiway.config import ConfigError
from multiway.data.augment import finish
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import write_model
from multiway.hub.model import Model
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.answer_writer import AnswerWriter
from multiway.methods.method import Step
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.recipes.answer_writer import answer_writer, spelt
from multiway.recipes.training import prepare
from multiway.tasks.generated_answers import GeneratedAnswers
from multiway.tasks.vqa import Vqa
from multiway.world import World

WORDS = Tokenizer.train(
    ["what colour is the circle", "how many things are there", "is the star red or blue", "yes no two three one"],
    TokenizerSpec(vocabulary=300, context=40),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    config = AlbefConfig(
        image=VisionConfig(size=32, patch=8, width=32, layers=1, heads=2),
        text=TextConfig(context=0, width=32, layers=1, heads=2, causal=False, pool="class"),
        fusion_layers=2, embedding=8, queue=4,
    )  # fmt: skip
    method = Albef(config.resolve(DataInfo(vocabulary=len(WORDS), context=40)))
    file = tmp_path_factory.mktemp("run") / "model.safetensors"
    write_model(file, method, Processor(ViewSpec(size=32, crop="squash"), WORDS))
    return str(file)


def test_a_run_becomes_one_that_writes(run: str) -> None:
    recipe = answer_writer(run)
    recipe = replace(recipe, data="scenes:easy,samples=200,gallery=6", settings=replace(recipe.settings, batch=8))
    ready = prepare(recipe, World())
    method = ready.method
    assert isinstance(method, AnswerWriter) and method.config.method == "albef"
    assert len(method.answers) > 5 and method.config.answer_ids[0][-1] == WORDS.special["eos"]
    # The decoder begins from the run's fused blocks, the method underneath is the run itself.
    fused = method.base.state_dict()["student.fusion.blocks.1.attention.qkv.weight"]
    assert torch.equal(method.decoder.state_dict()["blocks.blocks.1.attention.qkv.weight"], fused)
    batch = finish(ready.loader.batch(0), recipe.view)
    assert batch.targets is not None and batch.targets.shape == (8, len(method.answers))
    assert float(batch.targets.sum(1).max()) <= 1.0 + 1e-6
    losses = method(batch, World(), Step())
    losses.total.backward()
    assert losses.terms["lm"].chance is not None and losses.terms["lm"].chance > 0
    model = Model(method, ready.processor)
    examples = recipe.open(recipe.data, "test")
    ranked = Vqa(resamples=10).run(model, examples)
    written = GeneratedAnswers(resamples=10).run(model, examples)
    assert ranked.metrics["accuracy"].n == written.metrics["accuracy"].n == len(examples)
    assert set(ranked.details.given) <= set(method.answers)


def test_answers_are_spelt_between_start_and_end() -> None:
    start, end = WORDS.special["bos"], WORDS.special["eos"]
    (yes, two) = spelt(("yes", "two three"), WORDS)
    assert (yes[0], yes[-1], two[0], two[-1]) == (start, end, start, end)
    assert WORDS.decode(yes[1:-1]) == "yes" and WORDS.decode(two) == "two three"
    with pytest.raises(ConfigError, match="has 38 tokens or more"):
        spelt(("yes", "no " * 80), WORDS)


def test_without_a_run_there_is_nothing_to_tune(run: str) -> None:
    recipe = replace(answer_writer(run), init="")
    with pytest.raises(ConfigError, match="name a run"):
        recipe.build(DataInfo())


def test_other_folders_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        answer_writer(str(tmp_path))
