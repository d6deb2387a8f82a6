"""`--track` and `multiway track`: what a run sends while it trains and afterwards is what its folder says."""

import json
import sys
from pathlib import Path

import pytest
from command_line import QUICK, own_data
from tracker_stand_ins import stand_in

from multiway.cli.main import main
from multiway.engine.lock import RunLock
from multiway.engine.run import Run

SMALL = [
    "--batch",
    "16",
    "--horizon",
    "6",
    "--checkpoint-every",
    "2",
    "--method.image.layers",
    "1",
    "--method.text.layers",
    "1",
]
TRACK = ["--track", "wandb:project", "mlflow:http://host:5000"]


def test_a_tracked_run_is_gone_on_with_and_its_numbers_are_the_journal(
    caption_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb, mlflow = stand_in(monkeypatch)
    plain, tracked = (
        ["train", "clip", *own_data(caption_folder, name), *QUICK, *SMALL] for name in ("plain", "tracked")
    )
    assert main([*plain, "--steps", "6"]) == 0
    assert main([*tracked, "--steps", "4", *TRACK]) == 0
    assert main([*tracked, "--steps", "6", *TRACK]) == 0
    # Tracked or not, in one go or in two: the same run.
    folders = [caption_folder / name for name in ("plain", "tracked")]
    assert len({(folder / "metrics.jsonl").read_bytes() for folder in folders}) == 1
    (there,), (beside,) = wandb.runs.values(), mlflow.runs.values()
    losses = [(line["step"], line["loss"]) for line in Run.read(folders[1]).metrics()]
    assert list(zip(there["steps"], [each["loss"] for each in there["numbers"]], strict=True)) == losses
    assert [(step, value) for name, value, step in beside["metrics"] if name == "loss"] == losses
    assert there["exit"] == [0, 0] and beside["status"] == "FINISHED" and there["config"]["recipe"] == "clip"
    assert "track" not in Run.read(folders[0]).config["settings"]

    # Afterwards: a run that was never tracked has the same numbers; one that was has nothing to add.
    capsys.readouterr()
    assert main(["track", str(folders[0]), "--to", "wandb:project", "--json"]) == 0
    (sent,) = json.loads(capsys.readouterr().out)["sent"]
    assert sent["lines"] == 6 and [each["loss"] for each in wandb.runs[sent["id"]]["numbers"]] == [
        loss for _, loss in losses
    ]
    assert main(["track", str(folders[1]), "--to", "wandb:project"]) == 0
    assert "every line already" in capsys.readouterr().out and len(wandb.runs) == 2
    assert main(["track", str(folders[1]), "--to", "wandb:project", "--again"]) == 0
    assert "6 lines sent" in capsys.readouterr().out and len(wandb.runs) == 3


def test_what_cannot_be_sent_is_refused(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb, _ = stand_in(monkeypatch)
    assert main(["track", str(tiny_run), "--to", "comet"]) == 1 and "no tracker 'comet'" in capsys.readouterr().err
    assert main(["track", str(tmp_path), "--to", "wandb"]) == 1 and "not a run folder" in capsys.readouterr().err
    wandb.keyed = False
    assert main(["track", str(tiny_run), "--to", "wandb"]) == 1 and "WANDB_API_KEY" in capsys.readouterr().err
    lock = RunLock(tiny_run)
    assert main(["track", str(tiny_run), "--to", "wandb"]) == 1 and "being written" in capsys.readouterr().err
    lock.release()
    assert not wandb.runs and not (tiny_run / "tracking.json").exists()


def test_a_missing_library_is_found_out_before_a_folder_is_made(
    caption_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    args = ["train", "clip", *own_data(caption_folder, "out"), *QUICK, *SMALL, "--steps", "1", "--track", "wandb"]
    assert main(args) == 1 and "pip install 'multiway[wandb]'" in capsys.readouterr().err
    assert not (caption_folder / "out").exists()
