"""Numbers that go wrong and memory that runs out: never in silence, and never for ever."""

import json
from functools import partial
from pathlib import Path

import pytest
from faults import inflicted
from faults.harness import Child, command, finish, newest, same_run, write_data

pytestmark = pytest.mark.faults

STEPS = ("--steps", "24", "--checkpoint-every", "4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("numbers") / "own")


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_steps_that_are_not_finite_are_skipped_counted_and_rolled_back(folder: Path) -> None:
    """Two bad steps are passed over; five in a row go back to the checkpoint before them."""
    steps = (*STEPS, "--rollback", "5")
    args = command(folder, "two", *steps)
    said = finish(args, partial(inflicted.poisoned, first=9, last=11))
    assert "2 steps skipped because their gradient was not finite" in said and "back to" not in said

    args = command(folder, "five", *steps)
    bad = partial(inflicted.poisoned, first=9, last=15)
    said = finish(args, bad)
    assert "not finite in steps 10 to 14: back to the weights of step 8, on with the data after step 14" in said
    assert [line["step"] for line in lines(folder / "five") if line.get("skipped")] == [10, 11, 12, 13, 14, 15]
    assert {line["step"]: line["rolled_back_to"] for line in lines(folder / "five") if "rolled_back_to" in line} == {
        14: 8
    }

    # Killed among the bad steps, of which none is saved, it goes back at the same step to the same weights.
    args = command(folder, "killed", *steps)
    child = Child(args, bad, inflicted.steps)
    assert child.wait_for("step", 13), child.said
    child.strike()
    child.end()
    # The checkpoint of step 8 may have been under way: then it begins before it.
    at = int(newest(folder / "killed").name[5:])
    assert at in (4, 8) and f"resuming at step {at}" in finish(args, bad)
    assert same_run(folder / "five", folder / "killed")


def test_a_run_that_has_diverged_for_good_ends_and_says_so(folder: Path) -> None:
    child = Child(command(folder, "lost", *STEPS, "--rollback", "3"), partial(inflicted.poisoned, first=5, last=99))
    assert child.end() == 1
    assert (
        "after going back to step 4 3 times" in child.said
        and "lower --lr" in child.said
        and "Traceback" not in child.said
    )


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_out_of_memory_says_what_to_change(folder: Path, kind: str) -> None:
    args = command(folder, f"hungry-{kind}", *STEPS)
    child = Child(args, partial(inflicted.hungry, at=9, kind=kind))
    assert child.end() == 1
    said = child.said
    assert "out of memory in" in said and "Traceback" not in said and "The checkpoint of step 8 is intact" in said
    for advice in ("--checkpoint-blocks", "--cache 8", "--accumulate 2", "--precision bf16", "--batch 8"):
        assert advice in said, said
    # Two of the remedies are taken at once, and what was saved is gone on with.
    assert "resuming at step 8" in finish([*args, "--cache", "8"])
    assert lines(folder / f"hungry-{kind}")[-1]["step"] == 24
