"""Asked to stop, as a person or a scheduler asks, a run saves after the step in hand, exits with 0, and goes on as if never stopped."""

import json
import signal
import time
from pathlib import Path

import pytest
from faults import inflicted
from faults.harness import Child, command, finish, newest, same_run, write_data

pytestmark = pytest.mark.faults

STEPS = ("--steps", "30", "--checkpoint-every", "100")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("stops") / "own")
    finish(command(folder, "straight", *STEPS))
    return folder / "straight"


@pytest.mark.parametrize(
    ("number", "group", "workers"),
    [
        (signal.SIGTERM, False, 0),
        (signal.SIGINT, False, 0),
        (signal.SIGUSR1, False, 0),
        (signal.SIGUSR2, False, 0),
        # A terminal's Ctrl-C and a scheduler's signal reach the loader's workers too.
        (signal.SIGTERM, True, 1),
        (signal.SIGINT, True, 2),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_request_to_stop(undisturbed: Path, number: signal.Signals, group: bool, workers: int) -> None:
    folder, out = undisturbed.parent, f"{number.name}-{workers}"
    args = command(folder, out, *STEPS, "--workers", str(workers))
    child = Child(args, inflicted.steps)
    assert child.wait_for("step", 6), child.said
    child.strike(number, group)
    asked = time.monotonic()
    assert child.end() == 0, child.log.read_text()
    assert time.monotonic() - asked < 60
    run = folder / out
    stopped = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert 6 <= stopped < 30 and f"stopped at step {stopped}" in child.said and "the same command goes on" in child.said
    assert newest(run).name == f"step-{stopped:08d}" and (run / "model.safetensors").exists()
    assert f"resuming at step {stopped}" in finish(args)
    assert same_run(undisturbed, run)


def test_asked_twice_it_ends_at_once_and_loses_only_what_was_not_saved(undisturbed: Path) -> None:
    folder = undisturbed.parent
    args = command(folder, "twice", *STEPS)
    child = Child(args, inflicted.steps, inflicted.slow_steps)
    assert child.wait_for("step", 3), child.said
    for _ in range(2):
        child.strike(signal.SIGINT)
        time.sleep(0.2)
    assert child.end() == 130 and "interrupted" in child.said
    finish(args)
    assert same_run(undisturbed, folder / "twice")


def test_clocks_that_go_back_change_nothing(undisturbed: Path) -> None:
    folder = undisturbed.parent
    args = command(folder, "clock", *STEPS)
    child = Child(args, inflicted.clocks_going_back, inflicted.steps)
    assert child.wait_for("step", 9), child.said
    child.strike(signal.SIGTERM)
    assert child.end() == 0, child.log.read_text()
    finish(args, inflicted.clocks_going_back)
    assert same_run(undisturbed, folder / "clock")
    for line in map(json.loads, (folder / "clock" / "timings.jsonl").read_text().splitlines()):
        assert line["step_seconds"] == line["data_seconds"] == line["loop_seconds"] == 0 <= line["checkpoint_seconds"]
        assert "samples_per_second" not in line
