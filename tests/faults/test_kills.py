"""Killed again and again, at instants that nobody chose and in the middle of saving, a run ends as if nothing had happened."""

import random
import time
from functools import partial
from pathlib import Path

import pytest
from faults import inflicted
from faults.harness import Child, command, finish, newest, same_run, write_data

pytestmark = pytest.mark.faults

STEPS = ("--steps", "90", "--checkpoint-every", "2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 90 steps; its data lie beside it."""
    folder = write_data(tmp_path_factory.mktemp("kills") / "own")
    said = finish(command(folder, "straight", *STEPS))
    assert "unreadable rows replaced" in said
    losses = (folder / "straight" / "metrics.jsonl").read_text().splitlines()
    assert len(losses) == 90
    return folder / "straight"


def test_forty_kills_across_a_run_change_nothing(undisturbed: Path) -> None:
    """A third while it starts, a third between two steps that nobody chose, a third certainly within a save."""
    folder, chance = undisturbed.parent, random.Random(7)
    args = command(folder, "killed", *STEPS)
    run = folder / "killed"
    starting = 1.0  # seconds until the first step, as measured
    reached, struck = [0], {"starting": 0, "training": 0, "saving": 0}
    while sum(struck.values()) < 40:
        kind = chance.choice(["starting", "training", "saving"] if reached[-1] < 80 else ["starting", "saving"])
        if kind == "saving":
            child = Child(args, partial(inflicted.hang_in_save, calls=chance.randrange(1, 24)))
            assert child.wait_for("saving"), child.said
        else:
            child = Child(args, inflicted.steps)
            if kind == "training":
                assert child.wait_for("step", reached[-1] + chance.randrange(1, 5)), child.said
                time.sleep(chance.uniform(0, 0.06))
                starting = 0.8 * starting + 0.2 * min(starting, time.monotonic() - child.began)
            else:
                time.sleep(chance.uniform(0, starting))
        child.strike()
        assert child.end() == -9, child.log.read_text()
        struck[kind] += 1
        reached.append(
            int(newest(run).name[5:]) if (run / "checkpoints").exists() and any(run.glob("checkpoints/step-*")) else 0
        )
        assert reached[-1] >= reached[-2], "a checkpoint was lost"
    assert min(struck.values()) >= 8 and 0 < reached[-1] <= 90, (struck, reached)
    said = finish(args)
    assert f"resuming at step {reached[-1]}" in said
    assert same_run(undisturbed, run)
    # And once more changes nothing.
    finish(args)
    assert same_run(undisturbed, run)


@pytest.mark.parametrize("calls", [1, 4, 7, 10, 13, 15])
def test_killed_at_each_stage_of_one_save(undisturbed: Path, calls: int) -> None:
    """The second save of a fresh run: whatever it had come to, the first or the second checkpoint is there, whole."""
    folder = undisturbed.parent
    args = command(folder, f"stage-{calls}", "--steps", "6", "--horizon", "90", "--checkpoint-every", "2")
    child = Child(args, partial(inflicted.hang_in_save, calls=calls, saves=2))
    assert child.wait_for("saving")
    child.strike()
    child.end()
    run = folder / f"stage-{calls}"
    assert newest(run).name in ("step-00000002", "step-00000004")
    finish(args)
    assert (run / "metrics.jsonl").read_bytes() == b"".join(
        (undisturbed / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:6]
    )


@pytest.mark.parametrize("calls", [1, 4, 7])
def test_killed_steps_after_a_save_began(undisturbed: Path, calls: int) -> None:
    """The save of step 16 hangs at some stage and the loop goes on beside it: what it did meanwhile is done again, alike."""
    folder = undisturbed.parent
    args = command(folder, f"beside-{calls}", "--steps", "24", "--horizon", "90", "--checkpoint-every", "8")
    child = Child(args, inflicted.steps, partial(inflicted.hang_in_save, calls=calls, saves=2))
    assert child.wait_for("step", 21), child.said
    child.strike()
    assert child.end() == -9
    run = folder / f"beside-{calls}"
    assert newest(run).name in ("step-00000008", "step-00000016")
    assert len((run / "metrics.jsonl").read_bytes().splitlines()) >= 21
    assert f"resuming at step {int(newest(run).name[5:])}" in finish(args)
    assert (run / "metrics.jsonl").read_bytes() == b"".join(
        (undisturbed / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:24]
    )
