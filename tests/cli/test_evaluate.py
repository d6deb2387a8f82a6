"""Options of `multiway eval`: they reach the task that has them, and are refused where they mean nothing."""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from multiway.batch import DataInfo, ViewSpec
from multiway.cli.evaluate import Evaluate
from multiway.cli.main import main
from multiway.cli.task_options import flag, with_options
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
from multiway.tasks.written import Captions

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


def asked(*words: str) -> Any:
    """The task as the command would run it."""
    given = tyro.cli(Evaluate, args=["model", *words])
    return with_options(TASKS[given.task], given.options)


def test_only_what_was_given_is_changed() -> None:
    for name, task in TASKS.items():
        assert asked("--task", name) == task
    assert asked("--task", "fusion", "--mix", "0.5") == Rerank("fusion", top=0, mix=0.5)
    # A mix of zero is a value like any other, and so is no prompt.
    assert with_options(Rerank(mix=3.0), {"mix": 0.0}).mix == 0.0  # type: ignore[attr-defined]
    assert with_options(Captions(prompt="a"), {"prompt": ""}).prompt == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("captions --strategy greedy --max-length 12 --min-length 4 --repetition-penalty 1.2 --rows 9", {
            "strategy": "greedy", "max_length": 12, "min_length": 4, "repetition_penalty": 1.2, "rows": 9}),
        ("captions --beams 5 --length-penalty 0.5 --prompt the", {"beams": 5, "length_penalty": 0.5, "prompt": "the"}),
        ("vqa-generate --strategy nucleus --top-p 0.5 --temperature 0.7 --seed 3", {
            "strategy": "nucleus", "top_p": 0.5, "temperature": 0.7, "seed": 3}),
        ("grounding --block -1 --tokens words --area 1 --resolution 48", {
            "block": -1, "tokens": "words", "area": 1.0, "resolution": 48}),
        ("refcoco --cells 4", {"cells": 4}),
        ("pairs --by compare", {"by": "compare"}),
        ("winoground --by match --resamples 50", {"by": "match", "resamples": 50}),
        ("zeroshot --prompts template --templates {} --precision bf16", {"prompts": "template", "templates": ("{}",)}),
        ("knn --ks 1 5 --features pooled --train val --temperature 0.1", {
            "ks": (1, 5), "features": "pooled", "train": "val", "temperature": 0.1}),
        ("probe --iterations 9 --train train --l2 0.1", {"iterations": 9, "l2": 0.1}),
        ("matching --rows 64 --temperature 0.1", {"rows": 64, "temperature": 0.1}),
        ("masked-words --rows 64", {"rows": 64}),
        ("video-retrieval --frames 4 --ks 1", {"frames": 4, "ks": (1,)}),
    ],
)  # fmt: skip
def test_options_reach_their_task(words: str, want: dict[str, Any]) -> None:
    task, *rest = words.split()
    assert asked("--task", task, *rest) == replace(TASKS[task], **want)  # type: ignore[type-var]


def test_every_option_is_of_a_task_and_every_field_is_known() -> None:
    """A field that a task gets is either an option or listed here with the reason why it is none."""
    not_asked = {
        "name", "kind", "pictures", "official",  # make it another task
        "batch", "chunk",  # change no figure
        "l2s",  # that a search goes through
        "size", "least", "scanned",  # of the list that a run is tuned on; what `pairs` calls `least` is for Python
        "source", "say",  # handed over by whoever runs it
    }  # fmt: skip
    options = {
        each.name
        for group in fields(Evaluate)
        if is_dataclass(own := group.default)
        for each in fields(own)  # type: ignore[arg-type]
    }
    of_tasks = {each.name for task in TASKS.values() for each in fields(task)}  # type: ignore[arg-type]
    assert options <= of_tasks and of_tasks - options <= not_asked


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("retrieval --mix 1", r"`retrieval` has no option --mix; tasks that have it: rerank, fusion"),
        ("matching --mix 1 --tau 0.1", r"`matching` has no option --mix"),
        ("zeroshot --top 3", r"`zeroshot` has no option --top"),
        ("rerank --tau 0.1", r"--tau 0.1 divides the cosine that --mix weighs.*add --mix"),
        ("rerank --mix 1 --tau 0", r"--tau is a number above 0; given 0.0"),
        ("rerank --mix 1 --tau -1", r"--tau is a number above 0"),
        ("rerank --mix 1 --tau nan", r"--tau is a number above 0"),
        ("rerank --mix inf", r"--mix is a number"),
        ("rerank --top 0", r"--top counts from 1; given 0"),
        ("fusion --top 5", r"`fusion` matches every pair.*--task rerank --top 5"),
        ("rerank --ks 1 0", r"--ks names numbers that count from 1; given 1 0"),
        ("retrieval --ks", r"--ks names numbers that count from 1; given nothing"),
        ("captions --top-p 0", r"--top-p"),
        ("vqa-generate --strategy nucleus --top-p 1.5", r"--top-p lies above 0, at most at 1; given 1.5"),
        ("vqa-generate --top-p 0.5", r"--top-p is of --strategy nucleus, and changes nothing with beam"),
        ("vqa-generate --temperature 0.5", r"--temperature is of --strategy nucleus"),
        ("captions --strategy greedy --beams 4", r"--beams is of --strategy beam, and changes nothing with greedy"),
        ("captions --min-length 50", r"task `captions`: generation needs .* min_length <= max_length"),
        ("vqa-generate --min-length 50", r"task `vqa-generate`: generation needs"),
        ("vqa-generate --prompt a", r"`vqa-generate` has no option --prompt; tasks that have it: captions"),
        ("captions --rows 0", r"--rows counts from 1"),
        ("knn --temperature 0", r"--temperature is above 0"),
        ("zeroshot --templates photo", r"--templates names sentences with one {} each.*given photo"),
        ("grounding --by match", r"`grounding` has no option --by; tasks that have it: winoground, pairs"),
        ("vqa --seed -1", r"--seed counts from 0; given -1"),
    ],
)
def test_options_that_mean_nothing_are_refused(words: str, complaint: str) -> None:
    task, *rest = words.split()
    with pytest.raises(ConfigError, match=complaint):
        asked("--task", task, *rest)


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    said = capsys.readouterr().out
    assert flag("top_p") == "--top-p"
    for name in ("--ks", "--top-p", "--block", "--by", "--templates", "--train", "--resamples", "--predictions"):
        assert f" {name} " in said
    assert "grounding options" in said and "--grounding." not in said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--block", "7"), "task `grounding`, asked with --block: there is no block 7; the model fuses in 1"),
        (("--block", "0", "--area", "1"), ""),
    ],
)
def test_what_does_not_fit_this_model_is_no_traceback(
    words: tuple[str, ...], complaint: str, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["eval", weights, "--task", "grounding", "--data", "scenes:easy,gallery=2@val", "--json", *words])
    out, err = capsys.readouterr()
    if not complaint:
        assert code == 0 and json.loads(out)["metrics"]["pointing"]["n"] > 0
    else:
        assert code == 1 and complaint in " ".join(err.split()) and not out


def test_a_dual_encoder_is_not_re_ranked(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--data", str(tiny_run.parent / "captions.jsonl") + "@val", "--images", str(tiny_run.parent / "pictures")]
    assert main(["eval", str(tiny_run), "--task", "rerank", "--mix", "1", *own]) == 1
    said = capsys.readouterr().err
    assert "needs match, which clip lacks" in said and "methods that have it: albef, " in said and " clip, " not in said
    assert main(["eval", str(tiny_run), "--task", "classification", *own]) == 1
    assert "a head has it: multiway finetune RUN --task classification" in capsys.readouterr().err
