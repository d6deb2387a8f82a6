"""Our own file's format: what an older version wrote is read, what a newer one wrote is refused by name."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from multiway.hub.file import WeightsError, is_ours, read_model, write_model
from multiway.hub.format import FORMAT, FormatError, current
from multiway.hub.load import load


def header_of(path: Path) -> dict[str, str]:
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata())


def test_the_first_format_is_read(tiny_run: Path, tmp_path: Path) -> None:
    source = tiny_run / "model.safetensors"
    header = header_of(source)
    assert header["format"] == FORMAT == "multiway-3" and "captions.jsonl" in json.loads(header["origin"])[0]["data"]
    old = {name: header[name] for name in ("method", "config", "processor")} | {"format": "multiway-1"}
    save_file(load_file(str(source)), str(tmp_path / "old.safetensors"), metadata=old)
    assert is_ours(tmp_path / "old.safetensors")
    model = load(tmp_path / "old.safetensors")
    assert model.method.config == load(tiny_run).method.config and model.origin == []
    write_model(tmp_path / "new.safetensors", model.method, model.processor)
    assert header_of(tmp_path / "new.safetensors")["format"] == FORMAT


@pytest.mark.parametrize(
    ("given", "said"),
    [("multiway-99", r"reads up to 'multiway-3'; install the version that wrote it \(7\.1\)"), ("multiway-0", "no version of multiway has written"),
     ("pt", "not multiway's"), ("multiway-1.5", "not multiway's"), ("", "not multiway's")],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_name(given: str, said: str, tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=said):
        current({"format": given, "version": "7.1"})
    source = tiny_run / "model.safetensors"
    save_file(
        load_file(str(source)),
        str(tmp_path / "m.safetensors"),
        metadata=header_of(source) | {"format": given, "version": "7.1"},
    )
    with pytest.raises(WeightsError, match=said):
        read_model(tmp_path / "m.safetensors")


def test_whose_weights_they_were_travels_with_them(tiny_run: Path, tmp_path: Path) -> None:
    model = load(tiny_run)
    origin = [{"weights": "somebody/clip", "kind": "CLIPModel", "licence": "mit"}, {"data": "emoji", "recipe": "clip"}]
    write_model(tmp_path / "a.safetensors", model.method, model.processor, origin)
    again = read_model(tmp_path / "a.safetensors")
    assert again.origin == origin and again.report is None


@pytest.mark.parametrize(
    ("before", "after"),
    [("{}", []), ('{"source": "x", "kind": "CLIPModel", "licence": "mit"}', [{"weights": "x", "kind": "CLIPModel", "licence": "mit"}])],
)  # fmt: skip
def test_the_second_format_had_one_origin(
    before: str, after: list[dict[str, str]], tiny_run: Path, tmp_path: Path
) -> None:
    source = tiny_run / "model.safetensors"
    old = header_of(source) | {"format": "multiway-2", "origin": before}
    save_file(load_file(str(source)), str(tmp_path / "old.safetensors"), metadata=old)
    assert read_model(tmp_path / "old.safetensors").origin == after


@pytest.mark.parametrize("origin", ["nothing", "{}", '"x"', "[1]", '[{"weights": 3}]'])
def test_an_origin_that_is_none_is_refused(origin: str, tiny_run: Path, tmp_path: Path) -> None:
    source = tiny_run / "model.safetensors"
    save_file(load_file(str(source)), str(tmp_path / "m.safetensors"), metadata=header_of(source) | {"origin": origin})
    with pytest.raises(WeightsError, match="origin"):
        read_model(tmp_path / "m.safetensors")
