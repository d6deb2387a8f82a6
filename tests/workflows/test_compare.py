"""`multiway compare`: cells that are kept, arms that need others, failures that are rows, and the table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import cell_command

from multiway.cli.main import main
from multiway.config import ConfigError
from multiway.workflows import arms, compare
from multiway.workflows.arms import Arm, CellFailed
from multiway.workflows.compare import ARMS, COLUMNS, markdown

DATA = "scenes:easy,objects=1-3,samples=64,gallery=24"
RUN_COMMAND = arms.run_command
SMALL = ("--threads", "1", "--batch", "16", "--tokenizer.vocabulary", "300")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three arms, small, one of which needs another."""
    tiny = (*SMALL, "--method.text.layers", "1", "--method.text.width", "32")
    picked = {
        "bert (blind)": replace(ARMS["bert (blind)"], options=tiny),
        "clip": replace(ARMS["clip"], options=(*ARMS["clip"].options, *tiny, "--method.image.layers", "1")),
        "vqkd": replace(ARMS["vqkd"], options=("--threads", "1", "--batch", "16")),
    }
    monkeypatch.setattr(compare, "ARMS", picked)
    monkeypatch.setattr(arms, "run_command", cell_command)


def test_a_cell_is_trained_in_a_process_of_its_own() -> None:
    peak = arms.run_command("data", "check", "digits")
    assert peak is None or 50 < peak < 10_000
    with pytest.raises(CellFailed, match=r"multiway data check nothing failed:\n(?s:.*)there is no data 'nothing'"):
        arms.run_command("data", "check", "nothing")


@pytest.mark.slow
def test_side_by_side_it_is_the_same_table(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes at once, each of which starts the command as a user does."""
    monkeypatch.setattr(arms, "run_command", RUN_COMMAND)
    names = ["bert (blind)", "clip"]
    one, two = (
        compare.compare(tmp_path / str(jobs), DATA, 16, names, gallery=12, jobs=jobs, rounds=0) for jobs in (1, 2)
    )
    for name in names:
        assert two["cells"][name]["results"] == one["cells"][name]["results"]
        peak = two["cells"][name]["peak_mib"]
        assert peak is None or 100 < peak < 10_000


def test_a_table_of_what_each_can_do(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = compare.compare(tmp_path, DATA, 32, gallery=12, rounds=2)
    assert list(table["cells"]) == ["bert (blind)", "clip", "vqkd"]
    blind, clip, codes = table["cells"].values()
    assert (
        set(blind["results"]) == {"masked-words"} and set(clip["results"]) == {"retrieval"} and codes["results"] == {}
    )
    assert clip["results"]["retrieval"]["text_retrieval/R@1"]["n"] == 12  # the gallery that was asked for
    for found in (blind, clip, codes):
        assert found["samples"] == 32 and found["gflops_per_pair"] > 0 and found["parameters"] > 1000
        assert 0 < found["ms"] < 10_000
    assert clip["gflops_per_pair"] > blind["gflops_per_pair"]
    config = json.loads((tmp_path / "vqkd" / "config.json").read_text())
    assert config["teacher"] == str(tmp_path / "clip")

    text = (tmp_path / "compare.md").read_text()
    assert text == markdown(table) and all(name in text for name in table["cells"])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {len(COLUMNS) + 2}

    # Again: nothing is trained, the same table.
    monkeypatch.setattr(arms, "run_command", lambda *words: pytest.fail("a finished cell was trained again"))
    monkeypatch.setattr(compare, "step_times", lambda *args: pytest.fail("steps were timed again"))
    again = compare.compare(tmp_path, DATA, 32, gallery=12, rounds=2)
    assert again["cells"] == table["cells"]
    # Other samples are other cells, which the stand-in refuses to train.
    with pytest.raises(pytest.fail.Exception):
        compare.compare(tmp_path, DATA, 48, gallery=12)


def test_a_cell_of_another_recipe_is_computed_anew(few: None, tmp_path: Path) -> None:
    """The run of the old one is set aside; one that was interrupted is gone on with."""
    first = compare.compare(tmp_path, DATA, 32, ["bert (blind)"], gallery=12, rounds=0)["cells"]["bert (blind)"]
    (tmp_path / "bert-blind" / "cell.json").unlink()
    again = compare.compare(tmp_path, DATA, 32, ["bert (blind)"], gallery=12, rounds=0)["cells"]["bert (blind)"]
    assert again["results"] == first["results"] and not list(tmp_path.glob("*-before-*"))
    arm = compare.ARMS["bert (blind)"]
    compare.ARMS["bert (blind)"] = replace(arm, options=(*arm.options, "--lr", "0.01"))
    changed = compare.compare(tmp_path, DATA, 32, ["bert (blind)"], gallery=12, rounds=0)["cells"]["bert (blind)"]
    assert changed["key"] != first["key"]
    assert (tmp_path / "bert-blind-before-1" / "model.safetensors").is_file()


def test_what_an_arm_needs_is_trained_first(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr(compare, "cell", lambda arm, *rest: done.append(arm.name) or {"failed": "no"})
    with pytest.raises(ConfigError, match="no arm 'coco'"):
        compare.compare(tmp_path, DATA, 32, ["coco"])
    compare.compare(tmp_path, DATA, 32, ["vqkd"])
    assert done == ["clip"]  # it failed, so what needs it is not begun


def test_a_failed_arm_is_a_row_and_the_others_go_on(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare.ARMS["clip"] = Arm("clip", "clip", ("--view.size", "60"))  # does not divide into patches
    table = compare.compare(tmp_path, DATA, 32, gallery=12, rounds=0)
    cells = table["cells"]
    assert "failed" in cells["clip"] and "needs clip" in cells["vqkd"]["failed"] and "results" in cells["bert (blind)"]
    assert "| clip | failed:" in markdown(table)


def test_every_arm_is_a_recipe_whose_needs_come_before_it() -> None:
    before: set[str] = set()
    for arm in ARMS.values():
        assert {need for _, need in arm.needs} <= before, arm
        before.add(arm.name)
        others = {need: Path("runs") / need for _, need in arm.needs}
        recipe, args = arms.arm_recipe(arm, Path("runs/x"), DATA, 6400, 3, others)
        assert recipe.data == DATA and recipe.settings.seed == 3
        assert recipe.settings.steps * recipe.settings.batch == pytest.approx(6400 * arm.share, rel=0.03)
        assert all(str(path) in args for path in others.values())


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = {"key": "k", "peak_mib": 9.0, "gflops_per_pair": 2.0, "parameters": 5, "samples": 64, "results": {}}
    monkeypatch.setattr(compare, "cell", lambda *args: dict(cell))
    monkeypatch.setattr(compare, "step_times", lambda recipes, rounds, say: dict.fromkeys(recipes, 1.5))
    out = str(tmp_path / "table")
    assert main(["compare", "--methods", "clip", "albef", "--samples", "64", "--out", out, "--json"]) == 0
    said = capsys.readouterr()
    cells = json.loads(said.out)["cells"]
    assert list(cells) == ["clip", "albef"] and cells["albef"]["ms"] == 1.5 and "albef" in said.err
    assert main(["compare", "--jobs", "0", "--out", out]) == 1
    assert main(["compare", "--methods", "nobody", "--out", out]) == 1
    monkeypatch.setattr(compare, "cell", lambda *args: (_ for _ in ()).throw(CellFailed("it broke")))
    assert main(["compare", "--methods", "clip", "--out", out]) == 1
