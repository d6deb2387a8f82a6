"""One file holds a whole model, and is believed only when every tensor is accounted for."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from multiway.hub import file as weights_file
from multiway.hub.file import WeightsError, read_model, write_model
from multiway.hub.load import load

TEXTS = ["red on the left", "the top is blue"]


def header_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata())


def test_the_file_is_complete(tiny_run: Path, tmp_path: Path) -> None:
    """Another process, with nothing but the file, gives the same embeddings."""
    model = load(tiny_run)
    write_model(tmp_path / "m.safetensors", model.method, model.processor)
    script = (
        "import sys, torch, multiway as mw; torch.set_num_threads(1);"
        "e = mw.load(sys.argv[1]).encode_text(['red on the left', 'the top is blue']).embedding;"
        "print(','.join(x.hex() for x in e.flatten().tolist()))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "m.safetensors")], capture_output=True, text=True, check=True
    )
    theirs = torch.tensor([float.fromhex(x) for x in said.stdout.strip().split(",")])
    assert torch.allclose(theirs, model.encode_text(TEXTS).embedding.flatten(), atol=1e-6)


def test_round_trip_is_exact(tiny_run: Path, tmp_path: Path) -> None:
    model = load(tiny_run)
    write_model(tmp_path / "m.safetensors", model.method, model.processor)
    again = read_model(tmp_path / "m.safetensors")
    for name, tensor in model.method.state_dict().items():
        assert torch.equal(tensor, again.method.state_dict()[name]), name
    assert again.processor.to_header() == model.processor.to_header()
    assert again.method.config == model.method.config


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "log_scale"}, "missing: log_scale"),
        (lambda t: {**t, "extra.weight": torch.zeros(2)}, r"left over: extra\.weight"),
        (
            lambda t: {**t, "text.embed.words.weight": torch.zeros(3, 3)},
            r"other shapes: text\.embed\.words\.weight \(3, 3\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tiny_run: Path, tmp_path: Path, change, complaint: str) -> None:
    source = tiny_run / "model.safetensors"
    save_file(change(load_file(str(source))), str(tmp_path / "m.safetensors"), metadata=header_of(source))
    with pytest.raises(WeightsError, match=complaint):
        read_model(tmp_path / "m.safetensors")


def test_damaged_and_foreign_files_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    whole = (tiny_run / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_model(tmp_path / "cut.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights at all")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_model(tmp_path / "text.safetensors")
    save_file({"x": torch.zeros(1)}, str(tmp_path / "foreign.safetensors"))
    with pytest.raises(WeightsError, match="not multiway's"):
        load(tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="does not exist"):
        load(tmp_path / "nothing")
    (tmp_path / "run").mkdir()
    with pytest.raises(WeightsError, match="not written its weights yet"):
        load(tmp_path / "run")


def test_a_full_disk_leaves_the_old_file(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny_run)
    target = tmp_path / "m.safetensors"
    write_model(target, model.method, model.processor)
    before = target.read_bytes()

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights_file, "save_file", full)
    with pytest.raises(WeightsError, match="free some space"):
        write_model(target, model.method, model.processor)
    assert target.read_bytes() == before and list(tmp_path.iterdir()) == [target]


def test_init_starts_from_other_weights(tiny_run: Path) -> None:
    from multiway.cli.train import parse
    from multiway.recipes.training import prepare
    from multiway.world import World

    own = tiny_run.parent
    args = ["clip", "--data", str(own / "captions.jsonl"), "--images", str(own / "pictures"), "--batch", "32", "--view.size", "16",
            "--method.image.size", "16", "--method.image.layers", "1", "--method.text.layers", "1"]  # fmt: skip
    ready = prepare(parse([*args, "--init", str(tiny_run)]), World())
    for name, tensor in load(tiny_run).method.state_dict().items():
        assert torch.equal(ready.method.state_dict()[name], tensor), name
    with pytest.raises(WeightsError, match="of other shapes: image_projection"):
        prepare(parse([*args, "--init", str(tiny_run), "--method.embedding", "16"]), World())
