"""CIFAR-10, CIFAR-100 and STL-10 from miniatures in their binary layouts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multiway.cli.main import main
from multiway.data.open import open_source, open_splits, splits_of
from multiway.data.source import DataError, Source

NAMES = ("airplane", "automobile", "bird")


def cifar10(root: Path, each: int = 4) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Files as published, smaller: (N, 32, 32, 3) pixels and (N,) labels of each split."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    random = np.random.default_rng(0)
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "test": []}
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        pixels = random.integers(0, 256, (each, 32, 32, 3), dtype=np.uint8)
        labels = random.integers(0, len(NAMES), each, dtype=np.uint8)
        with (folder / name).open("wb") as file:
            for label, picture in zip(labels, pixels, strict=True):
                file.write(bytes([label]) + picture.transpose(2, 0, 1).tobytes())
        found["test" if name.startswith("test") else "train"].append((pixels, labels))
    return {split: tuple(np.concatenate(each) for each in zip(*parts, strict=True)) for split, parts in found.items()}  # type: ignore[misc]


def cifar100(root: Path, each: int = 4) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    (folder / "fine_label_names.txt").write_text("\n".join(NAMES) + "\n")
    random, found = np.random.default_rng(1), {}
    for split in ("train", "test"):
        pixels = random.integers(0, 256, (each, 32, 32, 3), dtype=np.uint8)
        labels = random.integers(0, len(NAMES), each, dtype=np.uint8)
        with (folder / f"{split}.bin").open("wb") as file:
            for label, picture in zip(labels, pixels, strict=True):
                file.write(bytes([7, label]) + picture.transpose(2, 0, 1).tobytes())  # the coarse label comes first
        found[split] = (pixels, labels)
    return found


def stl10(root: Path, each: int = 3) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    (folder / "class_names.txt").write_text("\n".join(NAMES) + "\n")
    random, found = np.random.default_rng(2), {}
    for split in ("train", "test", "unlabeled"):
        pixels = random.integers(0, 256, (each, 96, 96, 3), dtype=np.uint8)
        (folder / f"{split}_X.bin").write_bytes(b"".join(picture.transpose(2, 1, 0).tobytes() for picture in pixels))
        labels = random.integers(0, len(NAMES), each)
        if split != "unlabeled":
            (folder / f"{split}_y.bin").write_bytes(bytes((labels + 1).astype(np.uint8)))
        found[split] = (pixels, labels if split != "unlabeled" else np.full(each, -1))
    return found


SETS = {"cifar10": cifar10, "cifar100": cifar100, "stl10": stl10}
Writer = Callable[[Path], dict[str, tuple[np.ndarray, np.ndarray]]]


@pytest.mark.parametrize("name", SETS)
def test_every_picture_and_label_comes_back(name: str, tmp_path: Path) -> None:
    wanted = SETS[name](tmp_path)
    assert splits_of(f"{name}:{tmp_path}") == tuple(wanted)
    for split, (pixels, labels) in wanted.items():
        found = open_source(f"{name}:{tmp_path}@{split}")
        assert isinstance(found, Source) and len(found) == len(pixels) and found.classes == NAMES
        for number in range(len(found)):
            assert np.array_equal(np.asarray(found.image(number)), pixels[number])
            row = found.row(number)
            assert row.label == labels[number]
            assert row.captions[0] == (f"a photo of a {NAMES[labels[number]]}." if row.label >= 0 else "a photo.")
        assert "not the published split" in found.notes[0]  # type: ignore[attr-defined]
    assert len(open_source(f"{name}:{tmp_path}@all")) == sum(len(labels) for _, labels in wanted.values())
    assert [each.split for each in open_splits(f"{name}:{tmp_path}")] == list(wanted)


def test_other_pixels_or_labels_are_other_data(tmp_path: Path) -> None:
    cifar10(tmp_path / "a")
    cifar10(tmp_path / "b")
    before, same = (open_source(f"cifar10:{tmp_path / each}@test").fingerprint for each in "ab")
    assert before == same
    file = tmp_path / "b" / "cifar-10-batches-bin" / "test_batch.bin"
    data = bytearray(file.read_bytes())
    data[0] = (data[0] + 1) % 3
    file.write_bytes(bytes(data))
    assert open_source(f"cifar10:{tmp_path / 'b'}@test").fingerprint != before


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-bin"
    with pytest.raises(DataError, match="no split 'val'; it has train, test"):
        open_source(f"cifar10:{tmp_path}@val")
    file = folder / "test_batch.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(DataError, match="no whole number of pictures of 3,073; it was cut off"):
        open_source(f"cifar10:{tmp_path}@test")
    file.write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes"):
        open_source(f"cifar10:{tmp_path}@test")
    file.write_bytes(bytes([9]) + whole[1:])
    with pytest.raises(DataError, match=r"picture 0: the class is 9; batches.meta.txt names 3"):
        open_source(f"cifar10:{tmp_path}@test")
    (folder / "batches.meta.txt").write_text("cat\ncat\n")
    with pytest.raises(DataError, match="names 2 classes, 1 different"):
        open_source(f"cifar10:{tmp_path}@train")
    (folder / "batches.meta.txt").unlink()
    with pytest.raises(DataError, match=r"has no batches.meta.txt"):
        open_source(f"cifar10:{tmp_path}@train")
    with pytest.raises(DataError, match="no such folder"):
        open_source(f"cifar10:{tmp_path / 'nowhere'}@train")
    pickled = tmp_path / "pickled" / "cifar-10-batches-py"
    pickled.mkdir(parents=True)
    (pickled / "data_batch_1").write_bytes(b"\x80")
    with pytest.raises(DataError, match="the pickled version, which is not read"):
        open_source(f"cifar10:{pickled.parent}@train")


def test_stl_labels_must_be_as_many_and_count_from_one(tmp_path: Path) -> None:
    stl10(tmp_path)
    file = tmp_path / "stl10_binary" / "test_y.bin"
    file.write_bytes(bytes([1, 2]))
    with pytest.raises(DataError, match="has 2 labels from 1; expected 3, from 1"):
        open_source(f"stl10:{tmp_path}@test")
    file.write_bytes(bytes([0, 1, 2]))
    with pytest.raises(DataError, match="from 0; expected 3, from 1"):
        open_source(f"stl10:{tmp_path}@test")


def test_a_method_trains_on_them_and_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cifar10(tmp_path / "data", each=8)
    out, data = str(tmp_path / "run"), f"cifar10:{tmp_path / 'data'}"
    args = ["train", "simclr", "--data", data, "--steps", "2", "--batch", "8", "--device", "cpu", "--threads", "1",
            "--method.backbone.base", "4", "--evaluate", "probe=@test", "--out", out]  # fmt: skip
    assert main(args) == 0
    assert main(["eval", out, "--task", "knn", "--ks", "5", "--data", f"{data}@test", "--json"]) == 0
    assert "accuracy/top-1[k=5]" in capsys.readouterr().out
