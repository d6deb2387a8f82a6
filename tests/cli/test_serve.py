"""The verb: what it refuses before a model is loaded, and what it searches."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from multiway.cli import serve as verb
from multiway.cli.main import main
from multiway.cli.serve import Serve
from multiway.hub.load import load


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["serve", *args]) == 1
    return capsys.readouterr().err


def test_what_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "leave one of them out" in refused(capsys, "runs/a", "--index", "i", "--data", "emoji")
    assert "--port is 70000" in refused(capsys, "runs/a", "--port", "70000")
    with pytest.raises(SystemExit):
        main(["serve", "runs/a", "--pixels", "0"])
    assert "--pixels is 0; expected 1 or more" in capsys.readouterr().err
    assert str(tmp_path / "none") in refused(capsys, str(tmp_path / "none"), "--port", "0")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else found(name, *rest)
    )
    assert refused(capsys, "runs/a") == "multiway: this needs uvicorn; pip install 'multiway[serve]'\n"


def test_what_is_searched(tiny_run: Path) -> None:
    model = load(tiny_run)
    assert verb._gallery(Serve(str(tiny_run)), model) is None
    own = verb._gallery(Serve(str(tiny_run), data="own"), model)
    assert own is not None and len(own) == 96
    assert (tiny_run / "cache").is_dir()  # the next start finds them encoded
    file = Serve(str(tiny_run / "model.safetensors"), data="own")
    with pytest.raises(ValueError, match="name the pictures to search with --data"):
        verb._gallery(file, model)
