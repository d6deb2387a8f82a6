"""`multiway plan` as a user types it."""

import json
import time
from pathlib import Path

import pytest
from small_recipes import SCENES

from multiway.cli.main import main

OWN = [
    "--data",
    SCENES,
    "--batch",
    "32",
    "--tokenizer.vocabulary",
    "300",
    "--method.image.layers",
    "1",
    "--method.text.layers",
    "1",
]


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "clip", *OWN, "--gpu", "h100", "--gpus", "4", "--price", "2.5"]) == 0
    said = capsys.readouterr().out
    for expected in (
        "8 rows on each of 4 devices",
        "bf16",
        "optimiser state",
        "fits",
        "a step",
        "most: ",
        "device hours",
        "at 2.5 an hour",
    ):
        assert expected in said, said


def test_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "mae", *OWN[:4], "--gpu", "t4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["precision"] == "fp32" and found["memory"]["fits"]  # a T4 has no bfloat16
    assert found["memory"]["peak"] == pytest.approx(sum(found["memory"]["parts"].values()))
    assert found["time"]["step"] == pytest.approx(sum(found["time"]["parts"].values()))
    assert found["run"]["hours"] == pytest.approx(found["run"]["steps"] * found["time"]["step"] / 3600)


def test_fit_prints_a_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["plan", "clip", *OWN, "--batch", "256", "--gpu", "h100", "--memory", "0.06"]
    assert main(args) == 1 and "--fit plans what makes it smaller" in capsys.readouterr().out
    assert main([*args, "--fit"]) == 0
    said = capsys.readouterr().out
    assert said.strip().splitlines()[-1].startswith("multiway train clip --data scenes") and "ways to fit" in said


def test_checked_against_this_processor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "clip", *OWN, "--gpu", "cpu", "--check", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert abs(found["memory"]["peak"] / found["measured"]["memory"] - 1) < 0.2
    assert found["measured"]["step"] > 0 and found["device"]["name"].startswith("this processor, 1 thread")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["clip", "--gpu", "h1000"], "there are a100-40"),
        (["clip", *OWN, "--gpu", "h100", "--gpus", "5"], "choose a multiple of 5"),
        (["clip", *OWN, "--gpu", "h100", "--check"], "--check trains on the one device that is here"),
        (["vqkd", "--gpu", "h100"], "--teacher RUN"),
        (["clip", *OWN, "--gpu", "h100", "--cache", "7"], "does not divide into micro-batches of 7"),
    ],
)
def test_bad_input(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *args]) == 1
    assert said in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["plan", "clap", "--gpu", "h100"])
    assert stopped.value.code == 2 and "multiway plan: there is no recipe `clap`" in capsys.readouterr().err
    with pytest.raises(SystemExit) as helped:
        main(["plan", "--help"])
    assert helped.value.code == 0 and "--measured-rate" in capsys.readouterr().out


@pytest.mark.slow
def test_a_large_preset_in_seconds_and_little_memory(tmp_path: Path) -> None:
    """427.6 M parameters with Adam's moments are 6.8 GB; a plan takes 30 s and 2 GB at most, torch's imports included."""
    import os
    import subprocess
    import sys

    script = (
        "import resource, sys; from multiway.cli.main import main; "
        "code = main(['plan', 'clip', '--preset', 'vit-l-14', '--gpu', 'h200', '--gpus', '8', '--batch', '4096', '--json']); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    began = time.process_time(), time.perf_counter(), os.times().children_user
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Seconds of the processor: the machine may be others' too.
    assert os.times().children_user - began[2] < 30
    assert int(done.stderr.split()[-1]) * 1024 < 2e9
    assert json.loads(done.stdout)["parameters"] == 427_616_513
