"""`multiway consolidate`: a checkpoint as the file that the run itself writes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import multiway
from multiway.cli.main import main
from multiway.engine.checkpoint import read


def test_the_last_checkpoint_is_the_runs_own_file(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "new" / "all.safetensors"
    assert main(["consolidate", str(tiny_run), "--out", str(out)]) == 0
    assert f"{tiny_run} at step 30 -> {out}: " in capsys.readouterr().out
    card = out.with_suffix(".md").read_text()
    assert f"# clip, from `{tiny_run}`, after step 30" in card and "whose licence is not known here" in card
    assert "| image_retrieval/R@1" in card or "R@1 |" in card
    assert multiway.load(out).origin == multiway.load(tiny_run).origin != []
    ours, theirs = load_file(out), load_file(tiny_run / "model.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert multiway.load(out).encode_text(["a red square"]).embedding.shape == (1, 128)  # its processor is with it


def test_an_earlier_step_by_number_or_by_folder(tiny_run: Path, tmp_path: Path) -> None:
    place, files = tiny_run / "checkpoints" / "step-00000015", [tmp_path / f"{n}.safetensors" for n in range(2)]
    assert main(["consolidate", str(tiny_run), "--step", "15", "--out", str(files[0])]) == 0
    assert main(["consolidate", str(place), "--out", str(files[1])]) == 0
    assert "After 15 steps." in files[0].with_suffix(".md").read_text()  # nothing that was measured later
    tensors, _ = read(place)
    for file in files:
        assert all(torch.equal(each, tensors[f"model.{name}"]) for name, each in load_file(file).items())


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--step", "7"], "no checkpoint of step 7; there are: 15, 30"),
        (["--out", "folder"], "is to be one file of weights"),
    ],
)
def test_what_is_not_there_is_told(
    tiny_run: Path, given: list[str], complaint: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["consolidate", str(tiny_run), *given]) == 1
    assert complaint in capsys.readouterr().err
    assert main(["consolidate", str(tiny_run / "checkpoints" / "step-00000015"), "--step", "30"]) == 1
    assert "is the checkpoint of step 15, and --step says 30" in capsys.readouterr().err
