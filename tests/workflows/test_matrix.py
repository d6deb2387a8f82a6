"""`multiway matrix`: cells that are kept, a blind row, runs that cannot be tuned for a task, and the table."""

import json
from pathlib import Path

import pytest
from command_line import cell_command

from multiway.cli.main import main
from multiway.config import ConfigError
from multiway.recipes.command import parse
from multiway.recipes.training import run_recipe
from multiway.workflows import matrix as workflow
from multiway.workflows.matrix import matrix, matrix_markdown
from multiway.world import World

DATA = "scenes:easy,objects=1-2,samples=64,gallery=8"
SMALL = ("--steps", "1", "--batch", "8", "--threads", "1", "--tokenizer.vocabulary", "300", "--data", DATA)
NARROW = (
    "--method.text.width",
    "32",
    "--method.text.layers",
    "1",
    "--method.image.width",
    "32",
    "--method.image.layers",
    "1",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A dual encoder, and an image tokeniser, which reads no text."""
    folder = tmp_path_factory.mktemp("runs")
    white = ("--view.mean", "1", "1", "1", "--view.std", "0.5", "0.5", "0.5")
    run_recipe(parse(["clip", *SMALL, *NARROW, *white, "--method.image.stem", "conv", "--view.size", "64", "--method.image.size", "64",
                      "--out", str(folder / "clip")]), World())  # fmt: skip
    run_recipe(parse(["vqkd", "--teacher", str(folder / "clip"), "--steps", "1", "--batch", "8", "--threads", "1", "--data", DATA,
                      "--out", str(folder / "vqkd")]), World())  # fmt: skip
    return str(folder / "clip"), str(folder / "vqkd")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "BATCH", 8)
    monkeypatch.setattr(workflow, "run_command", cell_command)


def test_a_row_for_each_run_one_blind_and_a_dash_for_what_cannot_be(
    runs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = matrix(runs, tmp_path, DATA, 16, ["entailment"])
    assert table["rows"] == ["clip", "vqkd", "clip, blind"] and table["tasks"] == ["entailment"]
    cells = table["cells"]
    assert len(cells) == 3 and "failed" in cells["vqkd/entailment"] and "results" in cells["clip, blind/entailment"]
    assert cells["clip/entailment"]["key"] != cells["clip, blind/entailment"]["key"]
    lines = matrix_markdown(table).splitlines()
    assert lines == (tmp_path / "matrix.md").read_text().splitlines()
    (dash,) = [line for line in lines if line.startswith("| vqkd")]
    assert dash.count("–") == 1 and lines[-1].startswith("| *chance* | 33.3 |")
    config = json.loads((tmp_path / "clip-blind-entailment" / "config.json").read_text())
    assert config["method"]["blind"] is True

    # Again: nothing is tuned that was, what failed is tried again.
    tried = []
    monkeypatch.setattr(workflow, "run_command", lambda *words: tried.append(words[1]) or _fail())
    again = matrix(runs, tmp_path, DATA, 16, ["entailment"])
    assert {name for name, cell in again["cells"].items() if "results" in cell} == {
        name for name, cell in cells.items() if "results" in cell
    }
    assert set(tried) == {runs[1]}


def _fail() -> None:
    raise workflow.CellFailed("no")


def test_what_is_asked_wrongly_is_refused(runs: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'rerank' is no column of a matrix"):
        matrix(runs, tmp_path, DATA, 16, ["rerank"])
    with pytest.raises(ConfigError, match="the same name"):
        matrix((runs[0], runs[0]), tmp_path, DATA, 16, ["vqa"])
    with pytest.raises(ConfigError, match="no run 'albef' to be tuned blind"):
        matrix(runs, tmp_path, DATA, 16, ["vqa"], blind="runs/albef")


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "chance": 0.25}
    cell = {"key": "k", "task": "vqa", "best": "accuracy", "results": {"accuracy": best}}
    monkeypatch.setattr(workflow, "_tuned", lambda *args: cell)
    assert main(["matrix", "runs/a", "runs/b", "--tasks", "vqa", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| a | 50.0 (40.0–60.0) |" in said and "| a, blind |" in said and "| *chance* | 25.0 |" in said


def test_what_needs_no_head_is_measured_as_it_is(runs: tuple[str, str], tmp_path: Path) -> None:
    """A run that lacks the ability has a dash; the blind row has nothing; nats and per cent are told apart."""
    table = matrix((runs[0],), tmp_path, DATA, 16, ["retrieval", "captioning", "knn"], classes="digits")
    cells = table["cells"]
    assert set(cells) == {"clip/retrieval", "clip/captioning", "clip/knn"}
    assert "caption_likelihood" in cells["clip/captioning"]["failed"] and "results" in cells["clip/knn"]
    lines = matrix_markdown(table).splitlines()
    assert "(`digits` for knn)" in lines[0] and lines[-2].startswith("| clip, blind |  |  |  |")
    shown = next(line for line in lines if line.startswith("| clip |")).split("|")
    own = cells["clip/retrieval"]["results"]["mean/R@1"]["value"]
    assert shown[2].strip().startswith(f"{100 * own:.1f} (") and shown[3].strip() == "–"
    again = matrix((runs[0],), tmp_path, DATA, 16, ["retrieval"])
    assert again["cells"]["clip/retrieval"] == cells["clip/retrieval"]
    nats = {"key": "", "task": "captioning", "best": "with_picture/nats", "results": {
        "with_picture/nats": {"value": 1.25, "low": 1.2, "high": 1.3, "n": 9, "chance": 2.5}}}  # fmt: skip
    told = {**table, "tasks": ["captioning"], "cells": {"clip/captioning": nats}}
    assert "| clip | 1.250 (1.200–1.300) |" in matrix_markdown(told) and "| *chance* | 2.500 |" in matrix_markdown(told)
