"""`multiway export` as a user calls it."""

import json
from pathlib import Path

import pytest
import torch
from hub.exported_models import made

from multiway.cli.main import main
from multiway.hub.file import write_model


def weights(folder: Path, case: str) -> str:
    model = made(case)
    write_model(folder / f"{case}.safetensors", model.method, model.processor)
    return str(folder / f"{case}.safetensors")


def test_a_program_and_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "programs"
    assert main(["export", weights(tmp_path, "clip"), str(out), "--format", "torch", "--parts", "text", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parts"] == ["text"] and said["checked"]["fp32"][0]["worst"] < 1e-4
    assert said["checked"]["fp32"][0]["cases"] == 5  # four sizes at random, and real captions
    run = torch.export.load(out / "text.pt2").module()
    assert run(torch.full((7, 3), 5), torch.ones(7, 3, dtype=torch.bool))[0].shape == (7, 128)
    assert "torch.export.load" in (out / "README.md").read_text()


def test_refused_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = weights(tmp_path, "dino")
    assert main(["export", source, str(tmp_path / "out"), "--parts", "caption", "match"]) == 1
    said = capsys.readouterr().err
    assert (
        "dino cannot be exported for caption (ability generate), match (ability match)" in said
        and "can be exported: image" in said
    )
    assert main(["export", source, str(tmp_path / "out"), "--opset", "12"]) == 1
    assert "expected 18 to 22" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    assert main(["export", source, str(tmp_path / "full")]) == 1
    assert "is there already" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"dino.safetensors", "full"}


@pytest.mark.slow
def test_the_cost_of_eight_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a task, before and after; then the folder is evaluated by itself, and gives the same."""
    out = str(tmp_path / "out")
    data = ["--data", "emoji@composition"]
    assert main(["export", weights(tmp_path, "clip"), out, "--int8", "--json", *data]) == 0
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)["losses"]}
    for folder, variant in ((out, "fp32"), (f"{out}/int8", "int8")):
        assert main(["eval", folder, "--task", "retrieval", "--json", *data]) == 0
        metrics = json.loads(capsys.readouterr().out)["metrics"]
        for name in ("text_retrieval/R@10", "mean/R@1"):
            # Of a random model a rank may hang on the last digit.
            assert abs(metrics[name]["value"] - rows[name][variant]) < 0.005, (folder, name)
    assert "| retrieval | emoji@composition |" in Path(out, "README.md").read_text()
