"""Weights between two models: the ends are the two, the middle is their mean, and nothing else is averaged."""

from pathlib import Path

import pytest
import torch

from multiway.batch import DataInfo, ViewSpec
from multiway.cli.main import main
from multiway.config import to_json
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.average import average
from multiway.hub.file import WeightsError, write_model
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.finetune import FineTune, FineTuneConfig
from multiway.methods.method import Method
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

CONFIG = ClipConfig(
    image=VisionConfig(size=16, patch=8, width=16, layers=1, heads=2),
    text=TextConfig(vocabulary=300, context=8, width=16, layers=1, heads=2),
    embedding=8,
)


def model(seed: int, method: type[Method] = Clip, width: int = 16) -> Model:
    torch.manual_seed(seed)
    words = Tokenizer.open(TokenizerSpec(vocabulary=300, context=8), ["a red circle", "a blue star"])
    info = DataInfo(vocabulary=300, context=8, special=words.special)
    made: Method = Clip(CONFIG.resolve(info))
    if method is FineTune:
        of = to_json(made.config)
        made = FineTune(FineTuneConfig(method="clip", of=of, kind="judged", answers=("no", "yes")))
    return Model(made, Processor(ViewSpec(size=16), words))


def test_the_ends_are_the_two_and_the_middle_is_their_mean() -> None:
    before, after = model(0), model(1)
    for alpha in (0.0, 0.25, 1.0):
        found = average(before, after, alpha).method.state_dict()
        for name, tensor in found.items():
            a, b = (each.method.state_dict()[name] for each in (before, after))
            torch.testing.assert_close(tensor, (1 - alpha) * a + alpha * b)


def test_a_head_is_taken_as_it_is_and_neither_model_changes() -> None:
    before, after = model(0), model(1, FineTune)
    kept = {name: each.clone() for name, each in after.method.state_dict().items()}
    found = average(before, after, 0.5).method.state_dict()
    assert all(torch.equal(found[name], each) for name, each in kept.items() if name.startswith("head."))
    own = before.method.state_dict()
    name = next(name for name in kept if name.startswith("base.image") and name.endswith("weight"))
    torch.testing.assert_close(found[name], (own[name.removeprefix("base.")] + kept[name]) / 2)
    assert all(torch.equal(each, kept[name]) for name, each in after.method.state_dict().items())


def test_changes_of_low_rank_are_averaged_as_weights() -> None:
    """Between before and before + change lies before + alpha change; neither model loses its form."""
    before = model(0)
    method = FineTune(
        FineTuneConfig(
            "clip", to_json(before.method.config), "judged", ("no", "yes"), lora="qkv", lora_rank=2, lora_alpha=4.0
        )
    )
    method.base.load_state_dict(before.method.state_dict())
    for name, each in method.changes.named_parameters():
        torch.nn.init.normal_(each) if name.endswith("up") else None
    after = Model(method, before.processor)
    found = average(before, after, 0.25).method
    assert found.config.lora == "" and method.config.lora == "qkv"
    own = before.method.state_dict()
    for layer in method.changes.layers:
        down, up = (method.changes.get_submodule(layer).get_parameter(side) for side in ("down", "up"))
        torch.testing.assert_close(
            found.state_dict()[f"base.{layer}.weight"], own[f"{layer}.weight"] + 0.25 * 2.0 * up @ down
        )
    assert len(method.changes.layers) == 2
    assert found.state_dict().keys() == model(0, FineTune).method.state_dict().keys()


def test_what_does_not_belong_together_is_refused() -> None:
    wide = model(0)
    wide.method.config = CONFIG
    with pytest.raises(WeightsError, match="not the same method"):
        average(wide, model(1), 0.5)
    with pytest.raises(ValueError, match=r"alpha is 1\.5"):
        average(model(0), model(1), 1.5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for seed in (0, 1):
        made = model(seed)
        files.append(str(tmp_path / f"{seed}.safetensors"))
        write_model(Path(files[-1]), made.method, made.processor)
    out = str(tmp_path / "between" / "c.safetensors")
    assert main(["average", *files, "--alpha", "0.25", "--out", f"{tmp_path}/folder"]) == 1
    assert "ends in .safetensors" in capsys.readouterr().err
    assert main(["average", *files, "--alpha", "0.25", "--out", out]) == 0
    assert "75%" in capsys.readouterr().out
    found, first, second = (load(each).method.state_dict() for each in (out, *files))
    name = "text.embed.words.weight"
    torch.testing.assert_close(found[name], 0.75 * first[name] + 0.25 * second[name])


def test_whose_weights_are_in_it_is_kept_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of both, what they share once; of one that says nothing, that nothing is known; and the licence of all together."""
    theirs = {"weights": "hf:somebody/clip", "kind": "CLIPModel", "licence": "mit"}
    origins = ([theirs], [theirs, {"data": "emoji", "recipe": "clip"}], [])
    files = []
    for number, origin in enumerate(origins):
        made = model(number)
        files.append(str(tmp_path / f"{number}.safetensors"))
        write_model(Path(files[-1]), made.method, made.processor, origin)
    out = tmp_path / "both.safetensors"
    assert main(["average", *files[:2], "--alpha", "0.25", "--out", str(out)]) == 0
    shares = {"average": f"0.75 of {files[0]}, 0.25 of {files[1]}"}
    assert load(out).origin == [theirs, {"data": "emoji", "recipe": "clip"}, shares]
    card = out.with_suffix(".md").read_text()
    assert 'license: "other"' in card and "began as those of `hf:somebody/clip`, under mit" in card
    assert "SIL Open Font License" in card and shares["average"] in card
    assert main(["average", files[0], files[2], "--out", str(out)]) == 0
    assert load(out).origin[1] == {"weights": files[2], "kind": "clip"}
    assert 'license: "unknown"' in out.with_suffix(".md").read_text()
