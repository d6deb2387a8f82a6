"""The same files as PyTorch's own writer makes, errors of the disk as the disk's, and a loop beside it that goes on."""

import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open

from multiway.engine import shard_writer, shards
from multiway.engine.shards import record_of, stage, write_shards
from multiway.world import World

TENSORS = {
    "weight": torch.randn(6, 5),
    "transposed": torch.randn(3, 4).t(),
    "half": torch.randn(7).bfloat16(),
    "eighth": torch.randn(4).to(torch.float8_e4m3fn),
    "count": torch.tensor(2**53 + 1),
    "flag": torch.tensor([True, False]),
    "empty": torch.empty(0, 3, dtype=torch.float64),
    "with.odd/name é": torch.arange(3, dtype=torch.int16),
}


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    folder.mkdir()
    staged = stage(tensors)
    write_shards(folder, staged, {name: record_of(each) for name, each in staged.items()}, World())


def content(path: Path) -> tuple[dict, dict]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return {
            n: (t.dtype, t.shape, t.reshape(-1).view(torch.uint8).tolist()) for n, t in tensors.items()
        }, file.metadata()


@pytest.mark.parametrize("size", [1 << 30, 60], ids=["one file", "several"])
def test_equal_to_pytorchs_own_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shards, "FILE_BYTES", size)
    write(tmp_path / "ours", TENSORS)
    monkeypatch.setattr(
        shards,
        "ShardWriter",
        lambda folder, numbers: dcp.HuggingFaceStorageWriter(
            str(folder), fqn_to_index_mapping=numbers, save_distributed=True
        ),
    )
    write(tmp_path / "theirs", TENSORS)
    ours, theirs = (sorted((tmp_path / name).iterdir()) for name in ("ours", "theirs"))
    assert [path.name for path in ours] == [path.name for path in theirs] and len(ours) == (1 if size > 60 else 4)
    for own, other in zip(ours, theirs, strict=True):
        assert content(own) == content(other) and own.stat().st_size == other.stat().st_size


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("I/O error: No space left on device (os error 28)", OSError, 28),
        ("I/O error: File too large (os error 27)", OSError, 27),
        ("invalid dtype", SafetensorError, None),
    ],
)
def test_errors_of_the_disk_have_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, kind: type, code: int | None
) -> None:
    def full(*rest: object, **named: object) -> None:
        raise SafetensorError(f"Error while serializing: {said}")

    monkeypatch.setattr(shard_writer, "save_file", full)
    with pytest.raises(dcp.api.CheckpointException) as failed:
        write(tmp_path / "c", TENSORS)
    cause = failed.value.failures[0][0]
    assert isinstance(cause, kind) and getattr(cause, "errno", None) == code


def test_a_loop_beside_it_goes_on(tmp_path: Path) -> None:
    """PyTorch's writer holds Python's lock while it assembles a file: the longest pause is then a good part of the whole."""
    tensors = {str(number): torch.zeros(5_000_000) for number in range(8)}
    thread = threading.Thread(target=write, args=(tmp_path / "c", tensors))
    began = last = time.perf_counter()
    worst = 0.0
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    assert worst < 0.5 * (last - began)
