"""From the command line: nearest neighbours, the probe, tuning for classes, videos and the cache, on a run of few steps."""

import json
from pathlib import Path

import pytest
from toy import COLOURS, PLACES, toy_picture

from multiway.cli.main import main
from multiway.recipes.command import parse
from multiway.recipes.training import run_recipe
from multiway.world import World

QUICK = [
    "--steps",
    "2",
    "--batch",
    "16",
    "--device",
    "cpu",
    "--precision",
    "fp32",
    "--threads",
    "1",
    "--log-every",
    "1",
]
SMALL = [
    "--view.size", "16", "--method.image.size", "16", "--method.image.layers", "1", "--method.text.layers", "1",
    "--method.image.width", "32", "--method.image.heads", "2", "--method.text.width", "32", "--method.text.heads", "2",
]  # fmt: skip
ONLINE = ["--evaluate", "knn=@test", "probe=@test", "--best", "top-1[k=20]"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for each of four colours: 32 pictures to learn from and 16 to be measured."""
    root = tmp_path_factory.mktemp("colours") / "data"
    for split, copies in (("train", 2), ("test", 1)):
        for number, colour in enumerate(list(COLOURS)[:4]):
            (root / split / colour).mkdir(parents=True)
            for place in list(PLACES) * copies:
                name = f"{len(list((root / split / colour).iterdir()))}.png"
                toy_picture(colour, place, 10 * copies + number).save(root / split / colour / name)
    return str(root)


@pytest.fixture(scope="module")
def run(data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP of two steps, measured by both probes while it trained."""
    out = tmp_path_factory.mktemp("run") / "run"
    run_recipe(parse(["clip", "--data", data, *QUICK, *SMALL, *ONLINE, "--out", str(out)]), World())
    return str(out)


def evaluated(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[dict, str]:
    assert main(["eval", *args, "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out)["metrics"], said.err


def test_both_probes_are_measured_while_training_and_after(run: str, data: str, capsys) -> None:
    last = json.loads((Path(run) / "metrics.jsonl").read_text().splitlines()[-1])
    online = next(value for value in last.values() if isinstance(value, dict) and any("k=20" in name for name in value))
    for task in ("knn", "probe"):
        metrics, _ = evaluated(capsys, run, "--task", task, "--data", f"{data}@test")
        for name, metric in metrics.items():
            assert online[f"data@test/{name}"]["value"] == pytest.approx(metric["value"], abs=0.07)
        assert all(metric["n"] == 16 for metric in metrics.values())


def test_options_reach_the_task_and_the_cache_is_used(run: str, data: str, tmp_path: Path, capsys) -> None:
    cached = ["--task", "knn", "--data", data, "--ks", "3", "--cache", str(tmp_path / "features")]
    first, said = evaluated(capsys, run, *cached)
    assert "0 embeddings were at hand, 48 were encoded" in said and "accuracy/top-1[k=3]" in first
    again, said = evaluated(capsys, run, *cached)
    assert "48 embeddings were at hand, 0 were encoded" in said and again == first
    _, said = evaluated(capsys, run, *cached, "--features", "pooled")
    assert "nothing was kept, since this task reads tokens" in said


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--task", "knn", "--data", "DATA", "--train", "test"], "16 of 16 pictures of"),
        (["--task", "knn", "--data", "DATA", "--train", "val"], "no rows in split 'val'"),
        (["--task", "retrieval", "--data", "DATA", "--train", "train"], "has no option --train; tasks that have it: knn, probe"),
        (["--task", "probe", "--data", "scenes:easy,gallery=4"], "has no class names"),
        (["--task", "video-retrieval", "--data", "DATA"], "is about videos, and"),
        (["--task", "video-retrieval", "--data", "DATA", "--frames", "0"], "--frames counts from 1"),
        (["--task", "vqa", "--data", "scenes:easy,gallery=4", "--cache", "x"], "--cache keeps embeddings"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_in_a_line(run: str, data: str, args: list[str], complaint: str, capsys) -> None:
    assert main(["eval", run, *(data if each == "DATA" else each for each in args)]) == 1
    said = capsys.readouterr().err
    assert complaint in said and "Traceback" not in said


def test_videos_are_found(run: str, capsys) -> None:
    moving = ["--data", "scenes-video:easy,gallery=6@val", "--frames", "2"]
    metrics, _ = evaluated(capsys, run, "--task", "video-retrieval", *moving)
    assert 0 <= metrics["video_retrieval/R@1"]["value"] <= 1 and metrics["video_retrieval/R@1"]["n"] >= 3


def test_a_run_is_tuned_for_classes_and_measured(run: str, data: str, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "tuned")
    args = ["finetune", run, "--task", "classification", *QUICK, "--steps", "30", "--lr", "0.01"]
    assert main([*args, "--data", data, "--method.layer-decay", "0.8", "--out", out]) == 0
    capsys.readouterr()
    tuned, _ = evaluated(capsys, out, "--task", "classification", "--data", data)
    assert tuned["accuracy/top-1"]["low"] > tuned["accuracy/top-1"]["chance"] and tuned["accuracy/top-1"]["n"] == 16
    # It can still be asked what the run underneath could.
    still, _ = evaluated(capsys, out, "--task", "zeroshot", "--data", data)
    assert "accuracy/top-1" in still
    assert main(["eval", out, "--task", "classification", "--data", "emoji@random"]) == 1
    assert "tuned for 4 classes" in capsys.readouterr().err
    assert main(["eval", run, "--task", "classification", "--data", data]) == 1
    assert "needs classify" in capsys.readouterr().err
    assert main([*args, "--data", "scenes", "--out", out + "2"]) == 1
    assert "has 0 classes" in capsys.readouterr().err
