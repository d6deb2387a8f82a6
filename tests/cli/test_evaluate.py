"""Options of `multiway eval`: they reach the task that has them, and are refused where they mean nothing."""

import json
from pathlib import Path

import pytest
import torch

from multiway.batch import DataInfo, ViewSpec
from multiway.cli.evaluate import Evaluate, _with_options
from multiway.cli.main import main
from multiway.config import ConfigError
from multiway.data.open import open_source
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import write_model
from multiway.hub.load import load
from multiway.methods.albef import Albef, AlbefConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.tasks import TASKS
from multiway.tasks.rerank import Rerank

DATA = "scenes:easy,gallery=16@val"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An ALBEF whose matches and cosines say different things."""
    source = open_source(DATA)
    words = Tokenizer.train([c for i in range(16) for c in source.row(i).captions], TokenizerSpec(300, 32))
    config = AlbefConfig(
        image=VisionConfig(size=16, patch=8, width=24, layers=1, heads=2),
        text=TextConfig(width=32, layers=1, heads=2, causal=False, pool="class"),
        fusion_layers=1,
        embedding=16,
        queue=0,
    )
    torch.manual_seed(0)
    method = Albef(config.resolve(DataInfo(vocabulary=len(words), context=32)))
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    file = tmp_path_factory.mktemp("albef") / "model.safetensors"
    write_model(file, method, Processor(ViewSpec(size=16, crop="squash"), words))
    return str(file)


def evaluated(capsys: pytest.CaptureFixture[str], *args: str) -> dict:
    assert main(["eval", *args, "--data", DATA, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["metrics"]


def test_mix_and_tau_reach_the_task(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = evaluated(capsys, weights, "--task", "rerank")
    mixed = evaluated(capsys, weights, "--task", "rerank", "--top", "8", "--mix", "2", "--tau", "0.1", "--ks", "1", "3")
    task = Rerank(top=8, mix=2.0, tau=0.1, ks=(1, 3))
    assert mixed == task.run(load(weights), open_source(DATA)).to_json()["metrics"]
    assert "text_retrieval/R@3" in mixed and "text_retrieval/R@5" not in mixed
    # The cosine alone, in the limit: nothing is gained over the encoders.
    alone = evaluated(capsys, weights, "--task", "fusion", "--mix", "1e6", "--tau", "1e-3")
    assert alone["mean/R@1_gain"]["value"] == 0.0 and alone["mean/R@1"]["value"] == alone["dual/mean/R@1"]["value"]
    ways = ("text_retrieval/R@5", "image_retrieval/R@5", "text_retrieval/median_rank", "image_retrieval/median_rank")
    assert any(plain[way]["value"] != alone[way]["value"] for way in ways)


def test_only_what_was_given_is_changed() -> None:
    assert _with_options(TASKS["rerank"], Evaluate("m", task="rerank")) == TASKS["rerank"]
    assert _with_options(TASKS["fusion"], Evaluate("m", task="fusion", mix=0.5)) == Rerank("fusion", top=0, mix=0.5)
    # A mix of zero is a value like any other.
    assert _with_options(Rerank(mix=3.0), Evaluate("m", task="rerank", mix=0.0)).mix == 0.0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"task": "retrieval", "mix": 1.0}, r"`retrieval` has no option --mix; tasks that have it: rerank, fusion"),
        ({"task": "matching", "mix": 1.0, "tau": 0.1}, r"`matching` has no option --mix"),
        ({"task": "zeroshot", "top": 3}, r"`zeroshot` has no option --top"),
        ({"task": "rerank", "tau": 0.1}, r"--tau 0.1 divides the cosine that --mix weighs.*add --mix"),
        ({"task": "rerank", "mix": 1.0, "tau": 0.0}, r"--tau one above 0; given --mix 1.0 and --tau 0.0"),
        ({"task": "rerank", "mix": 1.0, "tau": -1.0}, r"--tau one above 0"),
        ({"task": "rerank", "mix": 1.0, "tau": float("nan")}, r"--tau one above 0"),
        ({"task": "rerank", "mix": float("inf")}, r"--mix is a number"),
        ({"task": "rerank", "top": 0}, r"count from 1"),
        ({"task": "fusion", "top": 5}, r"`fusion` matches every pair.*--task rerank --top 5"),
        ({"task": "rerank", "ks": (1, 0)}, r"count from 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict, complaint: str) -> None:
    asked = Evaluate("model", **options)
    with pytest.raises(ConfigError, match=complaint):
        _with_options(TASKS[asked.task], asked)


def test_a_dual_encoder_is_not_re_ranked(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--data", str(tiny_run.parent / "captions.jsonl") + "@val", "--images", str(tiny_run.parent / "pictures")]
    assert main(["eval", str(tiny_run), "--task", "rerank", "--mix", "1", *own]) == 1
    said = capsys.readouterr().err
    assert "needs match" in said and "Traceback" not in said
