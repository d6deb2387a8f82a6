"""Reports of tuned runs: the task, examples of both kinds, and what was kept of the run before."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from multiway.cli.main import main
from multiway.data.annotated.open import open_examples
from multiway.data.examples import Chosen
from multiway.data.open import open_source
from multiway.hub.load import load
from multiway.tasks.judging import Verdicts
from multiway.tasks.refer import Pointings
from multiway.tasks.task import Metric
from multiway.tasks.vcr import Choices
from multiway.tasks.vqa import Answered
from multiway.workflows.kept import Kept, kept
from multiway.workflows.shown_examples import shown_examples
from multiway.workflows.tuned_report import is_tuned, write_tuned_report

DATA = "scenes:easy,objects=1-2,gallery=6"
QUICK = ["--device", "cpu", "--precision", "fp32", "--threads", "1", "--log-every", "1", "--steps", "2", "--batch", "4"]


@pytest.fixture(scope="module")
def tuned(fused_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "vqa"
    args = ["finetune", str(fused_run), "--task", "vqa", "--data", DATA, *QUICK, "--out", str(folder)]
    assert main(args) == 0
    return folder


def test_a_tuned_run_is_reported_with_what_it_has_kept(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tuned)]) == 0
    assert capsys.readouterr().out.strip() == str(tuned / "report.html")
    page = (tuned / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links) and "<script" not in page
    for shown in (f"vqa: {DATA}@val", f"vqa: {DATA}@test", "What it has kept", "picture → words R@1", "masked-words"):
        assert shown in page, shown
    assert "effective rank" not in page, "there is none where nothing is embedded"


def test_a_run_that_was_not_tuned_has_nothing_beside_it(fused_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_tuned({"recipe": "clip"})
    assert main(["report", str(fused_run), "--beside", DATA]) == 1
    assert "was not tuned for a task" in capsys.readouterr().err


def test_other_weights_under_the_old_name_are_not_compared(tuned: Path, tmp_path: Path) -> None:
    import json
    import shutil

    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "init_hash": "0" * 16}))
    assert "holds other weights by now" in write_tuned_report(run).read_text(encoding="utf-8")
    (run / "config.json").write_text(json.dumps({**config, "init": str(tmp_path / "gone")}))
    assert "can no longer be read" in write_tuned_report(run).read_text(encoding="utf-8")


def test_a_run_beside_itself_has_kept_everything(fused_run: Path) -> None:
    """The identity; and whoever forgot is seen."""
    before, after = load(fused_run), load(fused_run)
    source = open_source(f"{DATA}@test")
    same = list(kept(before, after, source))
    assert {each.task for each in same} == {"retrieval", "matching", "masked-words"}
    assert all(each.before == each.after and each.verdict == "" for each in same)
    with torch.no_grad():
        for weight in after.method.parameters():
            weight.mul_(torch.rand_like(weight))
    other = {(each.task, each.after.name): each for each in kept(before, after, source)}
    assert any(each.before != each.after for each in other.values())


@pytest.mark.parametrize(
    ("after", "unit", "verdict"),
    [(0.9, "", "yes"), (0.1, "", "no"), (0.5, "", ""), (0.9, "nats", "no"), (0.1, "nats", "yes")],
)
def test_better_and_worse(after: float, unit: str, verdict: str) -> None:
    first, second = (Metric("m", value, value - 0.1, value + 0.1, 10) for value in (0.45, after))
    assert Kept("t", "d", first, second, unit).verdict == verdict


def uri(image: Image.Image) -> str:
    return f"{image.size}"


def test_examples_right_and_wrong_of_every_kind() -> None:
    asked = open_examples(DATA, "vqa", "test")
    rows = [asked.example(number) for number in range(len(asked))]
    keys = tuple(row.key for row in rows)
    score = tuple(float(number % 2) for number in range(len(rows)))
    right, wrong = shown_examples(asked, Answered(keys, tuple("x" * len(rows)), score), uri, 2)
    assert len(right) == len(wrong) == 2 and all(each.right for each in right) and not any(each.right for each in wrong)
    assert all(each.given == "x" and each.wanted and each.text.endswith("?") for each in (*right, *wrong))

    judged = open_examples(DATA, "nlvr2", "test")
    said = [judged.labels[judged.example(number).label] for number in range(len(judged))]
    right, wrong = shown_examples(judged, Verdicts(keys, tuple(said), tuple(True for _ in said)), uri, 3)
    assert (
        len(right) == 3 and not wrong and all(len(each.pictures) == 2 and each.given == each.wanted for each in right)
    )

    chosen = open_examples(DATA, "vcr", "test")
    first = chosen.example(0)
    assert isinstance(first, Chosen)
    shares = tuple(tuple(float(place == 0) for place in range(4)) for _ in range(len(chosen)))
    right, wrong = shown_examples(chosen, Choices(keys, shares, ()), uri, 50)
    labels = [chosen.example(number).label for number in range(len(chosen))]
    assert len(right) == min(50, labels.count(0)) and all(each.given != each.wanted for each in wrong)


def test_regions_are_drawn_and_withheld_answers_are_not_shown() -> None:
    pointed = open_examples(DATA, "refcoco", "test")
    rows = [pointed.example(number) for number in range(len(pointed))]
    seen: list[Image.Image] = []

    def keep(image: Image.Image) -> str:
        seen.append(image)
        return ""

    boxes = tuple((0.0, 0.0, 0.5, 0.5) for _ in rows)
    found = Pointings(tuple(row.key for row in rows), boxes, tuple(0.6 for _ in rows))
    right, wrong = shown_examples(pointed, found, keep, 1)
    assert len(right) == 1 and not wrong and "60 %" in right[0].given
    colours = {colour for _, colour in seen[0].convert("RGB").getcolors(1 << 20) or ()}
    assert {(5, 150, 105), (220, 38, 38)} <= colours

    class Withheld:
        labels, pictures = (), pointed.pictures

        def __len__(self) -> int:
            return len(rows)

        def example(self, number: int):
            return replace(rows[number], boxes=())

    assert shown_examples(Withheld(), found, keep) == ([], [])
