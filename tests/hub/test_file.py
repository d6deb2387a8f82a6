"""One file holds a whole model, and is believed only when every tensor is accounted for."""

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random

import pytest
import torch
from faults.mutate import corrupt, damage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

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
        read_model(tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match=r"of nothing known here; its tensors are named like x. Known are: .*CLIP"):
        load(tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="does not exist"):
        load(tmp_path / "nothing")
    (tmp_path / "run").mkdir()
    with pytest.raises(WeightsError, match="not written its weights yet"):
        load(tmp_path / "run")


# --- headers that lie -------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The most numbers that any operation made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.most = max(self.most, found.numel())
        return found


def at(path: str, value: object) -> Callable[[dict], dict]:
    """A change of a JSON tree: `image.heads` becomes `value`."""

    def change(tree: dict) -> dict:
        *way, last = path.split(".")
        inner = tree
        for step in way:
            inner = inner[step]
        inner[last] = value
        return tree

    return change


LIES: dict[str, tuple[str, Callable[[dict], object], str]] = {
    "no heads": ("config", at("image.heads", 0), r"config\.image\.heads is 0"),
    "a negative width": ("config", at("image.width", -32), r"config\.image\.width is -32"),
    "an absurd width": ("config", at("image.width", 10**9), r"config\.image\.width is 1,000,000,000; no size"),
    "a width that is no number of 64 bits": ("config", at("text.width", 10**30), r"config\.text\.width is 1,000"),
    "a width that there is no room for": ("config", at("image.width", 1 << 20), "needs a tensor of"),
    "a vocabulary that there is no room for": ("config", at("text.vocabulary", 1 << 22), "needs a tensor of"),
    "layers without end": ("config", at("text.layers", 1 << 22), "parameters and buffers or more"),
    "pictures as large as a field": ("config", at("image.size", 1 << 20), "needs a tensor of"),
    "patches of nothing": ("config", at("image.patch", 0), r"config\.image\.patch is 0"),
    "another width": ("config", at("embedding", 16), r"other shapes: image_projection\.weight"),
    "another depth": ("config", at("image.layers", 2), r"missing: image\."),
    "no temperature": ("config", at("temperature", 0.0), "ZeroDivisionError"),
    "a list for a part": ("config", at("image", [1, 2]), "image"),
    "a config that is a list": ("config", lambda tree: [tree], "its config is a list; expected an object"),
    "a config nested without end": ("config", lambda tree: "[" * 100_000, "its config is not JSON"),
    "a processor that is a list": ("processor", lambda tree: [1], "its processor is a list; expected an object"),
    "a processor without a view": ("processor", lambda tree: {"text": None}, "its processor lacks 'view'"),
    "a view that is a list": ("processor", at("view", []), "expected the fields of ViewSpec"),
    "views as large as a field": ("processor", at("view.size", 10**6), "1,000,000 pixels a side"),
    "a margin as large as a field": ("processor", lambda t: at("view.margin", 1e9)(at("view.augment", "crop")(t)), "a side"),
    "a deviation of nothing": ("processor", at("view.std", [0.0, 1.0, 1.0]), "std above 0"),
    "a mean that is none": ("processor", at("view.mean", [float("nan"), 1.0, 1.0]), "expected numbers"),
    "a text that is a list": ("processor", at("text", [1]), "its processor"),
    "a tokeniser that is a number": ("processor", lambda t: at("text", {"tokenizer.json": 7, "context": 8})(t), "its processor"),
    "texts longer than there are positions": ("processor", at("text.context", 77), "a context of 77, its config one of 32"),
    "fewer words than the tokeniser has": ("config", at("text.vocabulary", 100), r"vocabulary of \d+, its config one of 100"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_headers_that_lie_are_refused_by_name_before_there_is_room_for_it(
    tiny_run: Path, tmp_path: Path, what: str
) -> None:
    place, change, complaint = LIES[what]
    source, path = tiny_run / "model.safetensors", tmp_path / "m.safetensors"
    header, tensors = header_of(source), load_file(str(source))
    changed = change(json.loads(header[place]))
    header[place] = changed if isinstance(changed, str) else json.dumps(changed)
    save_file(tensors, str(path), metadata=header)
    with Largest() as made, pytest.raises(WeightsError, match=complaint) as refused:
        read_model(path)
    assert "m.safetensors" in str(refused.value)
    assert made.most < 1 << 24


def test_numbers_of_another_kind_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    source, path = tiny_run / "model.safetensors", tmp_path / "m.safetensors"
    tensors = load_file(str(source))
    save_file(tensors | {"log_scale": tensors["log_scale"].bfloat16()}, str(path), metadata=header_of(source))
    read_model(path)
    save_file(tensors | {"log_scale": tensors["log_scale"].long()}, str(path), metadata=header_of(source))
    with pytest.raises(WeightsError, match=r"other numbers: log_scale torch\.int64 instead of torch\.float32"):
        read_model(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["config", "processor", "method"]), st.integers(0, 2**32), st.integers(1, 3))
def test_whatever_became_of_a_header_it_is_refused_or_a_model(
    tiny_run: Path, tmp_path: Path, place: str, seed: int, times: int
) -> None:
    source, dice = tiny_run / "model.safetensors", Random(seed)
    header, tensors = header_of(source), load_file(str(source))
    if place == "method" or dice.random() < 0.2:
        header[place] = damage(header[place].encode(), dice).decode(errors="replace")
    else:
        tree = json.loads(header[place])
        for _ in range(times):
            tree = corrupt(deepcopy(tree), dice) if tree else tree
        header[place] = json.dumps(tree)
    save_file(tensors, str(tmp_path / "m.safetensors"), metadata=header)
    try:
        model = read_model(tmp_path / "m.safetensors")
    except WeightsError as error:
        assert "m.safetensors" in str(error)
    else:
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.method.state_dict().items())


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
