"""Every file of a checkpoint and of a shard, truncated and changed in every tenth of its length: noticed, or without consequence."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.harness import command, finish, newest, same_run, write_data
from PIL import Image

from multiway.data.shard_writer import write_shards
from multiway.data.shards import read_shards
from multiway.data.source import BadRow, DataError, Row
from multiway.engine.checkpoint import load_latest, save

pytestmark = pytest.mark.faults


def cut(data: bytes, at: int) -> bytes:
    return data[:at]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def zeroed(data: bytes, at: int) -> bytes:
    """A page that the disk has lost."""
    return data[:at] + bytes(len(data[at : at + 64])) + data[at + 64 :]


def doubled(data: bytes, at: int) -> bytes:
    return data[:at] + data[at : at + 64] + data[at:]


DAMAGE: tuple[Callable[[bytes, int], bytes], ...] = (cut, flipped, zeroed, doubled)


def everywhere(file: Path) -> Iterator[Callable[[], None]]:
    """The file damaged in each tenth of it, in each way; it is whole again after each."""
    whole, mode = file.read_bytes(), file.stat()
    for tenth in range(10):
        for damage in DAMAGE:
            data = damage(whole, len(whole) * tenth // 10 + (tenth * 7) % max(1, len(whole) // 10))
            if data == whole:
                continue
            file.write_bytes(data)
            os.utime(file, ns=(mode.st_atime_ns, mode.st_mtime_ns))  # no time tells that it was touched
            yield partial(print, damage.__name__, tenth)
    file.write_bytes(whole)
    os.utime(file, ns=(mode.st_atime_ns, mode.st_mtime_ns))


def test_a_damaged_checkpoint_gives_the_one_before_it_or_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states = [{"w": torch.full((40, 40), float(step)), "b": torch.arange(100) + step} for step in range(3)]
    for step in (1, 2):
        save(tmp_path, step, states[step], {"step": step, "text": "x" * 300})
    tried = 0
    for file in sorted((tmp_path / "step-00000002").iterdir()):
        for _ in everywhere(file):
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                found = load_latest(tmp_path)
            assert found is not None
            # White space in the manifest may change; then it says the same.
            assert found.step == 1 or file.name == "manifest.json", file.name
            assert found.scalars["step"] == found.step and found.tensors.keys() == states[0].keys()
            assert all(torch.equal(found.tensors[name], tensor) for name, tensor in states[found.step].items())
            assert (found.step == 1) == ("damaged" in caplog.text)
            tried += 1
    assert tried > 100


class Noise:
    """Pictures that compress badly, kept as JPEG, which has no sum of its own."""

    name, split, classes, templates, fingerprint = "noise", "train", (), ("{}",), "noise"

    def __init__(self, folder: Path) -> None:
        self.files = []
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 256, (48, 48, 3), dtype=np.uint8)
            self.files.append(folder / f"{number}.jpg")
            Image.fromarray(pixels).save(self.files[-1], quality=90)

    def __len__(self) -> int:
        return len(self.files)

    def row(self, index: int) -> Row:
        return Row(f"n{index}", index, (f"number {index}", "noise"), where=f"row {index}")

    def encoded(self, index: int) -> bytes:
        return self.files[index].read_bytes()

    def image(self, index: int) -> Image.Image:
        return Image.open(self.files[index])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("indexed", [False, True], ids=["before it was indexed", "after it was indexed"])
def test_a_damaged_shard_gives_no_other_picture(tmp_path: Path, indexed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shards(Noise(tmp_path), tmp_path / "out", 6)
    [tar] = (tmp_path / "out").glob("*.tar")
    side = tar.with_name(f"{tar.name}.index.json")
    source = read_shards(str(tar), ceiling=1.0)["train"]
    before = {source.row(index).key: (source.row(index).captions, source.image(index).tobytes()) for index in range(6)}
    index_bytes = side.read_bytes()
    ends = {"refused": 0, "left out": 0, "same": 0}
    for _ in everywhere(tar):
        side.write_bytes(index_bytes)
        if not indexed:
            side.unlink()
        try:
            found = read_shards(str(tar), ceiling=1.0)
        except DataError as error:
            assert tar.name in str(error)
            ends["refused"] += 1
            continue
        for source in found.values():
            for index in range(len(source)):
                try:
                    pixels = source.image(index).tobytes()
                except BadRow as error:
                    assert tar.name in str(error)
                    ends["left out"] += 1
                    continue
                # Words that were damaged before anyone read them cannot be told from others; pictures can.
                assert pixels == before[source.row(index).key][1]
                ends["same"] += 1
    assert ends["refused"] >= 1 and ends["left out"] > 5 and ends["same"] > 50, ends


def test_a_damaged_index_of_a_shard_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shards(Noise(tmp_path), tmp_path / "out", 6)
    [tar] = (tmp_path / "out").glob("*.tar")
    side = tar.with_name(f"{tar.name}.index.json")
    wanted = read_shards(str(tar))["train"].fingerprint
    for _ in everywhere(side):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        assert read_shards(str(tar))["train"].fingerprint == wanted


def test_a_run_whose_newest_checkpoint_is_damaged_ends_the_same(tmp_path: Path) -> None:
    """Each file of it once; `tests/recipes/test_training.py` has the weights' at the end of a run."""
    folder = write_data(tmp_path / "own")
    steps = ("--steps", "12", "--checkpoint-every", "4")
    finish(command(folder, "straight", *steps))
    args = command(folder, "damaged", *steps)
    finish([*args, "--steps", "8", "--horizon", "12"])
    half = shutil.copytree(folder / "damaged", folder / "half")
    for name in ("state.json", "manifest.json", "*.safetensors"):
        shutil.rmtree(folder / "damaged")
        shutil.copytree(half, folder / "damaged")
        [file] = newest(folder / "damaged").glob(name)
        file.write_bytes(flipped(file.read_bytes(), file.stat().st_size // 2))
        said = finish(args)
        assert "checkpoint step-00000008 is damaged" in said and "resuming at step 4" in said
        assert same_run(folder / "straight", folder / "damaged")
