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


@pytest.fixture
def caption_folder(tmp_path: Path) -> Path:
    """A user's own data: captions.jsonl and pictures/, 96 rows, two captions for some pictures."""
    folder = tmp_path / "own"
    (folder / "pictures").mkdir(parents=True)
    source = ToySource(96)
    with (folder / "captions.jsonl").open("w") as file:
        for index in range(len(source)):
            source.image(index).save(folder / "pictures" / f"{index:03}.png")
            file.write(json.dumps({"image": f"{index:03}.png", "caption": list(source.row(index).captions)}) + "\n")
    return folder
