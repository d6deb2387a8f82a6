"""`multiway train ... --init image=A,text=B`: begun, said, kept, resumed, and refused when a source is another one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from multiway.batch import DataInfo, ViewSpec
from multiway.cli.main import main
from multiway.data.open import open_source
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import write_model
from multiway.hub.load import load
from multiway.methods.bert import Bert, BertConfig
from multiway.methods.clip import Clip, ClipConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

DATA = "scenes:easy,objects=1-2,gallery=6"
IMAGE = VisionConfig(size=16, patch=8, width=16, layers=1, heads=2)
TEXT = TextConfig(context=40, width=16, layers=1, heads=2, causal=False, pool="class")
QUICK = ["--device", "cpu", "--precision", "fp32", "--threads", "1", "--batch", "4", "--evaluate", "--view.size", "16"]
SMALL = [
    *("--method.image.size", "16", "--method.image.width", "16", "--method.image.layers", "1"),
    *("--method.image.stem", "patch", "--method.text.width", "16", "--method.text.layers", "1"),
    *("--method.fusion-layers", "1", "--method.embedding", "8", "--method.queue", "8"),
]


@pytest.fixture
def sources(tmp_path: Path) -> tuple[str, str]:
    """A CLIP whose tokeniser knows other words, and a text encoder that knows those of the scenes."""
    known = Tokenizer.train(open_source(f"{DATA}@val").tokenizer_captions, TokenizerSpec(512, 40))
    other = Tokenizer.train(["nothing that is here"], TokenizerSpec(60, 40))
    files = (tmp_path / "clip.safetensors", tmp_path / "bert.safetensors")
    config = ClipConfig(image=IMAGE, text=replace(TEXT, causal=True, pool="last"), embedding=8)
    for seed, (file, words) in enumerate(zip(files, (other, known), strict=True)):
        torch.manual_seed(seed)
        info = DataInfo(vocabulary=len(words), context=40, special=words.special)
        method = Bert(BertConfig(TEXT).resolve(info)) if seed else Clip(config.resolve(info))
        write_model(file, method, Processor(ViewSpec(size=16), words))
    return str(files[0]), str(files[1])


def train(*args: str, out: Path, steps: int = 2) -> int:
    return main(
        [
            "train",
            "albef",
            "--data",
            DATA,
            *QUICK,
            *SMALL,
            "--steps",
            str(steps),
            "--horizon",
            "4",
            *args,
            "--out",
            str(out),
        ]
    )


def test_two_towers_of_two_models(sources: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, words = sources
    init = ["--init", f"image={picture},text={words}"]
    run = tmp_path / "run"
    frozen = ["--optimiser.rules", r"student\.(image|text)\.", "0"]
    assert train(*init, *frozen, out=run) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "not named, so at random: " in told and "fusion" in told and "M of which learn" in told
    found = load(run)
    assert found.processor.tokenizer is not None
    assert found.processor.tokenizer.to_json() == load(words).processor.tokenizer.to_json()
    own, clip, bert = load_file(run / "model.safetensors"), load_file(picture), load_file(words)
    towers = {name: each for name, each in own.items() if name.startswith(("student.image.", "student.text."))}
    for name, each in towers.items():
        theirs = clip if ".image." in name else bert
        assert torch.equal(each, theirs[name.removeprefix("student.")]), name
    kept = json.loads((run / "config.json").read_text())
    assert kept["init"] == init[1] and len(kept["init_hash"]) == 16
    # Resumed it is the same run; with another text encoder under the same name it is not.
    assert train(*init, *frozen, out=run, steps=3) == 0
    model = load(words)
    with torch.no_grad():
        next(model.method.parameters()).add_(1.0)
    write_model(Path(words), model.method, model.processor)
    capsys.readouterr()
    assert train(*init, *frozen, out=run, steps=4) == 1
    assert "init_hash: " in capsys.readouterr().err


def test_what_is_wrong_is_found_before_a_step(
    sources: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, words = sources
    for init, says in (
        (f"picture={picture}", "Albef has no part 'picture'; there are: "),
        (f"image={picture},image={words}", "image is named twice"),
        (f"fusion={words}", "has no part 'fusion'; there are: text, words"),
        (f"image={tmp_path}/none", "does not exist"),
    ):
        assert train("--init", init, out=tmp_path / "no") == 1
        assert says in " ".join(capsys.readouterr().err.split()), init
        assert not (tmp_path / "no").exists()
    assert train("--init", f"image={picture},text={words}", "--dry-run", out=tmp_path / "no") == 0
    assert "not named, so at random: " in " ".join(capsys.readouterr().out.split()) and not (tmp_path / "no").exists()
