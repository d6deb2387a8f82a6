"""Shared by all tests: one thread (two busy threads can be ten times slower than one) and no network."""

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from toy import ToySource

torch.set_num_threads(1)


@pytest.fixture
def toy_source() -> ToySource:
    return ToySource()


def write_captions(folder: Path) -> Path:
    """A user's own data: captions.jsonl and pictures/, 96 rows, two captions for each picture."""
    (folder / "pictures").mkdir(parents=True)
    source = ToySource(96)
    with (folder / "captions.jsonl").open("w") as file:
        for index in range(len(source)):
            source.image(index).save(folder / "pictures" / f"{index:03}.png")
            file.write(json.dumps({"image": f"{index:03}.png", "caption": list(source.row(index).captions)}) + "\n")
    return folder


@pytest.fixture
def caption_folder(tmp_path: Path) -> Path:
    return write_captions(tmp_path / "own")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few steps on one's own data, made once."""
    from multiway.cli.train import parse
    from multiway.recipes.training import run_recipe
    from multiway.world import World

    folder = write_captions(tmp_path_factory.mktemp("tiny") / "own")
    args = [
        "--steps",
        "30",
        "--batch",
        "32",
        "--lr",
        "0.003",
        "--precision",
        "fp32",
        "--device",
        "cpu",
        "--log-every",
        "5",
    ]
    args += [
        "--view.size",
        "16",
        "--method.image.size",
        "16",
        "--method.image.layers",
        "1",
        "--method.text.layers",
        "1",
    ]
    args += ["--evaluate", "retrieval=@val", "--evaluate-every", "15"]
    data = ["--data", str(folder / "captions.jsonl"), "--images", str(folder / "pictures")]
    run_recipe(parse(["clip", *data, *args, "--out", str(folder / "run")]), World())
    return folder / "run"
