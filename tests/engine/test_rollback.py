"""Going back: the same weights as a loop written out, replayed alike after a kill at any step, and an end where it does not help."""

from pathlib import Path

import pytest
import torch

from multiway.engine.checkpoint import read, save
from multiway.engine.rollback import ATTEMPTS, Diverged, Rollback


def course(
    root: Path, bad: set[int], steps: int, start: int = 0, limit: int = 3, keep: int = 9, journal: list | None = None
) -> tuple[float, list]:
    """A run that adds the step's number to its weight, saves every fourth step, and passes over the bad ones.

    Returns:
        The weight and the journal; with `start`, a journal is cut back to it and gone on with.
    """
    weight, said = torch.zeros(1), []
    journal = [line for line in journal or [] if line["step"] <= start]
    if start:
        weight.copy_(read(root / f"step-{start:08d}")[0]["w"])
    rollback = Rollback(limit, root, {"w": weight}, said.append, journal)
    for step in range(start + 1, steps + 1):
        if step not in bad:
            weight += step
        # As the loop's journal: every bad step has a line, of the others some.
        if step in bad or step % 5 == 0:
            line = {"step": step} | ({"skipped": True} if step in bad else {})
            journal.append(line | rollback.after(step, step not in bad))
        if step % 4 == 0:
            save(root, step, {"w": weight}, {}, keep_last=keep, keep_best=0)
    return float(weight), journal


def went(journal: list) -> dict[int, int]:
    return {line["step"]: line["rolled_back_to"] for line in journal if "rolled_back_to" in line}


def test_it_goes_back_to_before_the_first_bad_step_and_on_with_later_data(tmp_path: Path) -> None:
    bad = {7, 8, 9}
    weight, journal = course(tmp_path, bad, 14)
    # The checkpoint of step 8 holds the same weights as step 6: it lies among the bad ones.
    assert went(journal) == {9: 4}
    assert weight == sum(range(1, 5)) + sum(range(10, 15))


def test_fewer_in_a_row_are_only_skipped(tmp_path: Path) -> None:
    bad = {3, 4, 6, 7, 9}
    weight, journal = course(tmp_path, bad, 12)
    assert went(journal) == {} and weight == sum(set(range(1, 13)) - bad)
    assert went(course(tmp_path / "never", set(range(5, 11)), 12, limit=0)[1]) == {}


def test_what_was_saved_among_bad_steps_is_no_place_to_go_back_to(tmp_path: Path) -> None:
    """Step 8 was saved with the weights that failed; after one good step they fail again."""
    weight, journal = course(tmp_path, {7, 8, 9, 11, 12, 13}, 15)
    assert went(journal) == {9: 4, 13: 4} and weight == sum(range(1, 5)) + 14 + 15


def test_a_replay_from_any_checkpoint_ends_the_same(tmp_path: Path) -> None:
    bad = {7, 8, 9, 10, 14, 15, 16, 17, 19, 20, 21}
    weight, journal = course(tmp_path / "straight", bad, 28)
    assert went(journal) == {9: 4, 16: 12, 21: 12}
    for stop in (4, 8, 12, 16, 20, 24):
        root = tmp_path / f"killed-{stop}"
        _, before = course(root, bad, stop + 3)
        assert course(root, bad, 28, start=stop, journal=before) == (weight, journal)


def test_no_checkpoint_from_before_is_an_end(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"steps 2 to 4, and no checkpoint from before .*lower --lr.*--checkpoint-every"):
        course(tmp_path, {2, 3, 4}, 8)
    with pytest.raises(Diverged, match="no checkpoint from before"):  # only the one among the bad steps is kept
        course(tmp_path / "one", {7, 8, 9}, 12, keep=1)


def test_a_checkpoint_that_does_not_help_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=f"after going back to step 4 {ATTEMPTS} times"):
        course(tmp_path, set(range(5, 40)), 40)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    weight, said = torch.zeros(1), []
    for step in (1, 2):
        save(tmp_path, step, {"w": weight + step}, {})
    next((tmp_path / "step-00000002").glob("*.safetensors")).write_bytes(b"")
    rollback = Rollback(1, tmp_path, {"w": weight}, said.append)
    assert (
        rollback.after(3, False) == {"rolled_back_to": 1}
        and weight.item() == 1
        and "back to the weights of step 1" in said[0]
    )


def test_what_is_better_not_saved(tmp_path: Path) -> None:
    rollback = Rollback(3, tmp_path, {}, print, [{"step": 4, "skipped": True}])
    rollback.after(6, False)
    rollback.after(7, True)
    assert [step for step in range(9) if rollback.spoilt(step)] == [4, 6]
    never = Rollback(0, tmp_path, {}, print)
    never.after(1, False)
    assert not never.spoilt(1)


def test_a_negative_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1, or 0 for never"):
        Rollback(-1, tmp_path, {}, print)
