"""The verbs as a user types them: output, exit codes, and one JSON object where it is asked for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from multiway.cli.main import VERBS, main


def test_without_a_verb_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in VERBS)
    assert main(["--version"]) == 0 and "multiway 0." in capsys.readouterr().out
    assert main(["trian"]) == 2 and "no verb `trian`" in capsys.readouterr().err


def test_values_that_a_method_refuses_are_one_line_and_a_bug_keeps_its_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused as the network is built, and by the first step; then the command is put right, into the same folder."""
    quick = ["--data", "digits", "--steps", "1", "--batch", "4", "--threads", "1", "--out", str(tmp_path / "a")]
    assert main(["train", "mae", *quick, "--method.backbone.heads", "5"]) == 1
    assert capsys.readouterr().err == "multiway: width 128 is not divisible by 5 heads; choose a multiple of 5\n"
    asked = ["train", "simclr", *quick]
    small = [*asked, "--method.backbone.base", "4", "--method.projector.hidden", "8", "--method.projector.output", "8"]
    assert main([*small, "--method.temperature", "0"]) == 1
    assert "multiway: temperature is 0.0; expected more than 0" in capsys.readouterr().err
    assert main(small) == 0

    def broken(*_: object) -> None:
        int("not a number")  # no message of ours

    monkeypatch.setattr("multiway.cli.train.planned", broken)
    with pytest.raises(ValueError, match="invalid literal"):
        main(asked)
    monkeypatch.undo()
    monkeypatch.setenv("MULTIWAY_TRACEBACK", "1")
    with pytest.raises(ValueError, match="temperature"):
        main([*small, "--out", str(tmp_path / "b"), "--method.temperature", "0"])


def test_help_needs_no_torch() -> None:
    script = "import sys; from multiway.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("methods", "clip"),
        ("recipes", "clip"),
        ("data", "emoji"),
        ("tasks", "retrieval"),
        ("tasks", "zeroshot"),
        ("layouts", "hf: siglip"),
        ("layouts", "ALBEF (salesforce/ALBEF)"),
        ("layouts", "--layout open_clip"),
    ],
)
def test_list(kind: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind]) == 0 and name.split()[0] in capsys.readouterr().out
    assert main(["list", kind, "--json"]) == 0
    assert name in [row["name"] for row in json.loads(capsys.readouterr().out)[kind]]


def test_list_of_nothing_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "colours"]) == 2 and "methods|recipes|data|tasks|layouts" in capsys.readouterr().err


def own(tiny_run: Path) -> list[str]:
    return ["--data", str(tiny_run.parent / "captions.jsonl") + "@val", "--images", str(tiny_run.parent / "pictures")]


def test_eval_prints_a_table_or_one_object(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(tiny_run), *own(tiny_run)]) == 0
    assert "95 % interval" in capsys.readouterr().out
    assert main(["eval", str(tiny_run), *own(tiny_run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"task", "data", "split", "metrics"} and found["split"] == "val"
    assert set(found["metrics"]["text_retrieval/R@1"]) == {"value", "low", "high", "n", "chance"}


def test_eval_runs_a_transformers_folder(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from multiway.hub.load import load
    from multiway.hub.transformers_clip import to_transformers

    main(["eval", str(tiny_run), *own(tiny_run), "--json"])
    ours = json.loads(capsys.readouterr().out)
    assert main(["convert", str(tiny_run), str(tmp_path / "clip")]) in (0, 1)
    said = capsys.readouterr()
    if "center" in said.err:  # a padded view has no counterpart in transformers
        pytest.fail(said.err)
    to_transformers(load(tiny_run), tmp_path / "clip")
    assert main(["eval", f"hf:{tmp_path / 'clip'}", *own(tiny_run), "--json"]) == 0
    # The pictures are square, so that padding and cutting agree.
    assert json.loads(capsys.readouterr().out)["metrics"] == ours["metrics"]
    assert main(["convert", f"hf:{tmp_path / 'clip'}", str(tmp_path / "back.safetensors")]) == 0
    assert "every one accounted for" in capsys.readouterr().out


def test_search_knows_the_runs_own_data(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(tiny_run), "red on the left", "--top", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == 96 and [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert main(["search", str(tiny_run), "red"]) == 0 and "cosine" in capsys.readouterr().out
    assert main(["search", str(tiny_run), "  "]) == 1 and "query is empty" in capsys.readouterr().err
    assert main(["search", str(tiny_run / "model.safetensors"), "red"]) == 1 and "--data" in capsys.readouterr().err


def test_a_generated_world_is_searched_in_part(
    tiny_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def searched(*args: str) -> tuple[int, str]:
        assert main(["search", str(tiny_run), "red", "--json", *args]) == 0
        said = capsys.readouterr()
        return json.loads(said.out)["pictures"], said.err

    world = "scenes:easy,gallery=6"  # a million to train on
    found, said = searched("--data", world)
    assert found == 6 and f"{world} is drawn and has 1,000,012 pictures: 6 of scenes:easy" in said
    assert "@val are searched; --pictures N searches N of all of them, evenly spread, and --pictures 0 all" in said
    assert searched("--data", world + ",samples=30") == (42, "")  # all of a small one, as of data that are files
    assert searched("--data", world, "--pictures", "7") == (7, "")
    monkeypatch.setattr("multiway.cli.search._DRAWN", 4)
    assert searched("--data", world)[0] == 4
    assert searched("--data", world + "@test")[0] == 4
    assert searched("--data", world + "@test", "--pictures", "0") == (6, "")
    assert searched() == (96, "") and searched("--pictures", "5") == (5, "")
    assert main(["search", str(tiny_run), "red", "--pictures", "-1"]) == 1
    assert "--pictures is -1; expected how many are searched" in capsys.readouterr().err


def test_doctor(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tiny_run)]) == 0 and capsys.readouterr().out.strip()
    assert main(["doctor", str(tiny_run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"]
    assert main(["doctor", str(tiny_run.parent)]) == 1 and "not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["eval", "nowhere"], "does not exist"),
        (["train", "clip", "--data", "nothing.jsonl", "--out", "unused"], "nothing.jsonl"),
        (["train", "clip", "--data", "emoji@test", "--out", "unused"], "composition"),
    ],
)
def test_mistakes_are_one_sentence(
    args: list[str], complaint: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    said = capsys.readouterr().err
    assert complaint in said and "Traceback" not in said and said.startswith("multiway: ")


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["train"], "recipes: albef, "),
        (["train", "clop"], "there is no recipe `clop`"),
        (["train", "clip", "--preset", "huge"], "vit-b-32"),
        (["train", "clip", "--setps", "3"], "--setps"),
        (["train", "clip", "--steps", "many"], "--steps"),
    ],
)
def test_bad_usage_is_exit_code_2(args: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(args)
    said = capsys.readouterr()
    assert ended.value.code == 2 and complaint in said.err + said.out


def test_dry_run_shows_what_would_be_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    args = [
        "train",
        "clip",
        "--data",
        "digits",
        "--view.size",
        "32",
        "--method.image.layers",
        "1",
        "--method.text.layers",
        "1",
    ]
    assert main([*args, "--batch", "32", "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "parameters" in said and "itc" in said and "3.4657" in said and "ln 32" in said and "the digit" in said
    picture = Image.open(tmp_path / "run-batch.png")
    assert picture.width > 200 and not (tmp_path / "run").exists()


def test_train_evaluates_and_keeps_the_best(tiny_run: Path) -> None:
    from multiway.engine.run import Run

    lines = Run.read(tiny_run).metrics()
    evaluated = [line for line in lines if "eval" in line]
    assert [line["step"] for line in evaluated] == [15, 30]
    assert "captions.jsonl@val/mean/R@1" in evaluated[0]["eval"]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert list((tiny_run / "tensorboard").iterdir())
