"""`multiway explain` as it is typed."""

import json
from pathlib import Path

import pytest
from toy import toy_picture

from multiway.cli.main import main


def test_a_run_with_its_own_data(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--data", str(tiny_run.parent / "captions.jsonl") + "@val", "--images", str(tiny_run.parent / "pictures")]
    picture = tmp_path / "red.png"
    toy_picture("red", "left").save(picture)
    args = [
        "explain",
        str(tiny_run),
        "--image",
        str(picture),
        "--text",
        "red on the left",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*args, *own, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["task"] == "explain" and said["pictures"] == ["red.png"] and said["data"].endswith("@val")
    assert {"attention-1.png", "distance.png", "positions.png", "maps-1-1.png", "maps.npz", "neighbours.png"} <= set(
        said["files"]
    )
    assert sorted([*said["files"], "explain.html"]) == sorted(each.name for each in (tmp_path / "out").iterdir())


def test_pictures_come_from_the_runs_data(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(tiny_run), "--count", "2", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "explain.html")
    assert (tmp_path / "attention-2.png").exists() and not (tmp_path / "attention-3.png").exists()
    assert not (tmp_path / "maps-1-1.png").exists()


def test_pointing_alone_is_a_table(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [
        "explain",
        str(tiny_run),
        "--pointing",
        "scenes:easy,gallery=6@test",
        "--samples",
        "8",
        "--out",
        str(tmp_path),
    ]
    assert main([*args, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    metrics = said["pointing"]["metrics"]
    assert {"random", "centre", "attention", "rollout", "itc-cam", "occlusion"} <= set(metrics)
    assert metrics["random"]["value"] == pytest.approx(metrics["random"]["chance"]) and metrics["occlusion"]["n"] == 8
    assert said["pictures"] == [] and said["files"] == ["pointing-1.png", "pointing-2.png", "pointing-3.png"]
    assert "wpa: clip never has words and patches in one space" in said["absent"]
    assert main([*args, "--kind", "occlusion"]) == 0
    table = capsys.readouterr().out
    assert "occlusion" in table and "itc-cam" not in table and "centre" in table


def test_against_other_texts(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_picture("red", "left").save(tmp_path / "a.png")
    args = [
        "explain",
        str(tiny_run),
        "--image",
        str(tmp_path / "a.png"),
        "--text",
        "red",
        "--out",
        str(tmp_path),
        "--json",
    ]
    scores = []
    for more in ([], ["--against", "blue", "green"], ["--against", "red"]):
        assert main([*args, "--kind", "itc-cam", "occlusion", *more]) == 0
        kinds = json.loads(capsys.readouterr().out)["numbers"]["maps of red"][0]["kinds"]
        assert kinds["itc-cam"]["score"] == pytest.approx(kinds["occlusion"]["score"], abs=1e-3)
        scores.append((kinds["occlusion"]["score"], kinds["occlusion"]["score_name"]))
    assert scores[0][1] == "similarity" and scores[1][1] == scores[2][1] == "similarity above that of others"
    assert scores[2][0] == pytest.approx(0, abs=1e-4) and scores[1][0] != scores[0][0]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--image", "nowhere.png"], "there is no such file"),
        (["--data", "none"], "no picture to look at"),
        (["--count", "0"], "--count is 0"),
        (["--layer", "9"], "there is no layer 9"),
        (["--kind", "saliency"], "no kind of map 'saliency'; there are: attention, rollout"),
        (["--text", "red", "--kind", "grad-cam"], "clip cannot show `grad-cam`"),
        (["--window", "-1"], "given window -1"),
        (["--pointing", "scenes:easy,gallery=4@test", "--samples", "0"], "samples is 0"),
        (["--mass", "2"], "given mass 2.0"),
        (["--text", "red", "--against", " "], "one of the texts to hold scores against is empty"),
    ],
)
def test_mistakes_are_one_sentence(
    tiny_run: Path, tmp_path: Path, more: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(tiny_run), "--out", str(tmp_path), *more]) == 1
    said = capsys.readouterr().err
    assert complaint in said and said.startswith("multiway: ") and "Traceback" not in said


def test_a_weights_file_needs_a_folder(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(tiny_run / "model.safetensors"), "--image", "a.png"]) == 1
    assert "--out" in capsys.readouterr().err
