"""Several runs on one page: what stands on it, that it stands alone, and what is refused."""

import json
import re
from pathlib import Path

import pytest

from multiway.cli.main import main
from multiway.config import ConfigError
from multiway.recipes.command import parse
from multiway.recipes.training import run_recipe
from multiway.workflows.curves import overlaid_curves
from multiway.workflows.runs_page import Beside, write_runs
from multiway.world import World


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("other") / "vilt"
    own = [
        "vilt",
        "--data",
        "scenes:easy,gallery=16,samples=64",
        "--tokenizer.context",
        "32",
        "--steps",
        "2",
        "--batch",
        "8",
    ]
    small = [
        "--view.size",
        "16",
        "--method.size",
        "16",
        "--method.patch",
        "8",
        "--method.width",
        "32",
        "--method.layers",
        "1",
    ]
    quick = ["--device", "cpu", "--precision", "fp32", "--threads", "1", "--out", str(out)]
    run_recipe(parse([*own, *small, *quick]), World())
    return out


@pytest.fixture(scope="module")
def page(fused_run: Path, other_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    out = tmp_path_factory.mktemp("page") / "deep" / "both.html"
    asked = Beside(rows=12, queries=2, pointing="scenes:easy,gallery=6@test", samples=6)
    found = write_runs([fused_run, other_run], out, asked)
    return out.read_text(encoding="utf-8"), found


def test_every_part_is_there(page: tuple[str, dict]) -> None:
    text, found = page
    for title in (
        "2 runs side by side", "Metrics", "Training", "Settings that differ", "The same words, asked of each",
        "The same pictures, asked of each", "The space that pictures and texts share", "Which map to believe", "Where captions are seen",
    ):  # fmt: skip
        assert f">{title}</h" in text, title
    assert ">loss: itc</h3>" in text and ">loss: wpa</h3>" in text and text.count("<svg") >= 5
    assert ">recipe</td>" in text and "modality gap" in text and 'class="best"' in text
    assert set(found["runs"]) == {"run", "vilt"} and found["differing"]["recipe"] == ["albef", "vilt"]
    # ViLT has no space of its own, and is searched by matching every pair.
    assert found["runs"]["vilt"]["space"] is None and "fusion" in found["runs"]["vilt"]["metrics"]
    assert found["runs"]["run"]["space"]["pairs"] == 16 and "rerank" in found["runs"]["run"]["metrics"]
    assert "wpa" in found["runs"]["vilt"]["pointing"] and "wpa" not in found["runs"]["run"]["pointing"]


def test_the_page_stands_alone(page: tuple[str, dict]) -> None:
    links = re.findall(r'(?:src|href)="([^"]*)"', page[0])
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert "<script" not in page[0] and "@import" not in page[0]


def test_both_answer_the_same_questions(page: tuple[str, dict]) -> None:
    asked = page[0].split("The same words, asked of each")[1].split("The same pictures")[0]
    assert asked.count("<h3>") == 2 and asked.count("<b>run</b>") == asked.count("<b>vilt</b>") == 2
    assert asked.count("<img") >= 20  # five each, and the right one where it is not among them


def test_the_command(fused_run: Path, other_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [
        "report",
        str(fused_run),
        str(other_run),
        "--rows",
        "8",
        "--queries",
        "1",
        "--out",
        str(tmp_path / "a.html"),
    ]
    assert main([*args, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["task"] == "report" and Path(said["page"]).is_file() and said["runs"]["vilt"]["pointing"] is None
    for wrong, complaint in (
        ([str(fused_run), str(fused_run)], "two different runs at least"),
        ([str(fused_run), str(other_run), "--beside", "scenes"], "--beside is for one tuned run"),
        ([str(fused_run), "--json"], "--json: for several runs side by side"),
        ([str(fused_run), "--rows", "8"], "--rows: for several runs"),
        ([str(fused_run), str(other_run), "--rows", "1"], "given rows 1"),
    ):
        assert main(["report", *wrong]) == 1
        assert complaint in capsys.readouterr().err


def test_curves_of_runs_over_each_other() -> None:
    def line(step: int, **terms: float) -> dict:
        found = {name: {"value": value, "chance": 2.0} for name, value in terms.items()}
        return {
            "step": step,
            "terms": found,
            "report": {"a_accuracy": 0.5},
            "health": {"image/rank": 3.0, "image/std": 1.0},
        }

    plots = overlaid_curves([([line(1, itc=2.0), line(2, itc=1.0)], 8), ([line(5, mlm=float("nan"))], 4), ([], 4)])
    assert [title for title, _ in plots] == ["loss: itc", "loss: mlm", "a accuracy, %", "effective rank: image"]
    assert all(svg.startswith("<svg") for _, svg in plots)
    with pytest.raises(ConfigError, match="no run"):
        write_runs([], Path("nowhere.html"))
