"""`mw.train`, `mw.finetune`, `mw.evaluate`, `mw.convert`: what the verbs do, from Python, and what they say to mistakes."""

from pathlib import Path

import pytest
import torch
from toy import ToySource

import multiway as mw
from multiway.cli.train import parse
from multiway.config import ConfigError
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.recipes.options import named_recipe

SMALL = {"view.size": 16, "method": {"image": {"size": 16, "layers": 1}, "text.layers": 1}}
TINY = {"steps": 2, "batch": 8, "device": "cpu", "precision": "fp32", "quiet": True}
SCENES = "scenes:easy,objects=1-2,gallery=40"


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A run that matches and writes, after two steps."""
    method = {"image.layers": 1, "text.layers": 1}
    return mw.train(
        "blip", data=SCENES, out=tmp_path_factory.mktemp("blip") / "run", method=method, evaluate=(), **TINY
    )


def test_options_are_those_of_the_command_line() -> None:
    words = (
        "clip --data captions.jsonl --steps 7 --lr 3e-4 --optimiser.warmup 0.2 --view.size 16 --method.image.layers 1"
    )
    wanted = parse(words.split())
    found = named_recipe(
        "clip",
        None,
        {
            "data": Path("captions.jsonl"),
            "steps": 7,
            "lr": 3e-4,
            "optimiser.warmup": 0.2,
            "view": {"size": 16},
            "method": {"image": {"layers": 1}},
        },
    )
    assert found == wanted and named_recipe("clip", "vit-b-32") == parse(["clip", "--preset", "vit-b-32"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [(("clop", None, {}), "there is no recipe `clop`; there are"), (("clip", "vast", {}), "vast"),
     (("clip", None, {"step": 3}), "no option 'step'; did you mean 'steps'"), (("clip", None, {"zzz": 3}), "there are: preset, data"),
     (("clip", None, {"steps": "many"}), r"clip\.settings\.steps is 'many'; expected int"),
     (("clip", None, {"view": {"side": 3}}), "view has fields that ViewSpec lacks: side"),
     (("clip", None, {"view.crop": "round"}), "expected one of"), (("clip", None, {"steps.most": 3}), "steps is 580, which has no fields"),
     (("clip", None, {"evaluate": ("retrievel=@val",)}), "expected task=data@split")],
)  # fmt: skip
def test_mistakes_are_named(asked: tuple, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        named_recipe(*asked)


def test_a_run_from_python_is_a_run(caption_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder that the command line resumes; begun from again; what it has learned from is known; and silent if asked."""
    data = {"data": caption_folder / "captions.jsonl", "images": caption_folder / "pictures"}
    first = mw.train("clip", **data, out=tmp_path / "a", evaluate=(), **SMALL, **TINY)
    assert capsys.readouterr() == ("", "")
    again = mw.train("clip", **data, out=tmp_path / "a", evaluate=(), **SMALL, **TINY)
    texts = ["red on the left"]
    assert torch.equal(first.encode_text(texts).embedding, again.encode_text(texts).embedding)
    began = mw.train(
        "clip", **data, out=tmp_path / "b", init=tmp_path / "a", evaluate=(), **SMALL, **{**TINY, "lr": 1e-5}
    )
    assert began.origin == first.origin == [{"data": str(data["data"]), "recipe": "clip"}]
    other = mw.train("clip", data="digits", out=tmp_path / "c", init=tmp_path / "b", evaluate=(), **SMALL, **TINY)
    assert other.origin == [*first.origin, {"data": "digits", "recipe": "clip"}]
    result = mw.evaluate(first, "retrieval", f"{data['data']}@val", images=data["images"], ks=(1, 2))
    assert str(result).startswith(f"retrieval on {data['data']}@val") and "text_retrieval/R@2" in str(result)
    assert mw.evaluate(tmp_path / "a", "retrieval", mw.open_source(f"{data['data']}@val", data["images"])).metrics
    with pytest.raises(ConfigError, match="there is no task 'retreival'"):
        mw.evaluate(first, "retreival")
    with pytest.raises(ConfigError, match="no option --beams"):
        mw.evaluate(first, "retrieval", ToySource(), beams=2)


def test_matching_and_writing_take_pictures_and_strings(blip: Model) -> None:
    source = mw.open_source(f"{SCENES}@test")
    pictures, texts = [source.image(0), source.image(1)], ["a red circle", "a blue square"]
    shown, said = blip.encode_image(pictures, tokens=True), blip.encode_text(texts, tokens=True)
    assert torch.allclose(blip.match(pictures, texts), blip.match(shown, said), atol=1e-5)
    assert torch.allclose(blip.fuse(pictures, texts).pooled, blip.fuse(shown, said).pooled, atol=1e-5)
    assert blip.generate(pictures) == blip.generate(shown)
    words = blip.processor.tokenizer
    assert blip.generate(pictures) == blip.generate(shown, mw.Generation(max_length=words.context))
    with pytest.raises(ValueError, match="as many pictures as texts"):
        blip.match(pictures, texts[:1])


def test_a_head_from_python(blip: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no head is tuned for the task 'dancing'"):
        mw.finetune("nowhere", "dancing")
    file = tmp_path / "blip.safetensors"
    done = mw.convert(blip, file)
    assert done.card.read_text().startswith('---\nlicense: "apache-2.0"')
    tuned = mw.finetune(file, "entailment", data=SCENES, out=tmp_path / "ve", evaluate=(), **TINY)
    source = mw.open_source(f"{SCENES}@test")
    pictures = [source.image(0), source.image(1)]
    scores = tuned.judge([pictures], ["a red circle", "a blue square"])
    assert scores.shape == (2, len(tuned.verdicts))
    assert [entry.get("recipe") for entry in tuned.origin] == ["blip", "finetune"]


def test_convert_says_what_does_not_go_together(blip: Model, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no layout 'onyx'"):
        mw.convert(blip, tmp_path / "x", "onyx")
    with pytest.raises(WeightsError, match="writes one file"):
        mw.convert(blip, tmp_path / "x", "torchscale")
    with pytest.raises(WeightsError, match="still to be loaded"):
        mw.convert(blip, tmp_path / "x", size=32)
    with pytest.raises(WeightsError, match=r"image\.stem='patch'"):  # a tiny one has no counterpart there
        mw.convert(blip, tmp_path / "x")
    assert not (tmp_path / "x").exists()
