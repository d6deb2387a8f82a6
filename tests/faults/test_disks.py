"""Disks that are full, read-only, or limit the size of files: a clear error, and the run goes on from what it had once there is room."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from faults import inflicted
from faults.harness import Child, command, finish, newest, same_run, write_data

pytestmark = pytest.mark.faults

STEPS = ("--steps", "12", "--checkpoint-every", "4")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("disks") / "own")
    finish(command(folder, "straight", *STEPS))
    return folder / "straight"


def mount(place: Path, options: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount(place, "size=64m")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def on(disk: Path, undisturbed: Path) -> list[str]:
    """The command of `undisturbed` with its run folder on another disk."""
    args = command(undisturbed.parent, "unused", *STEPS)
    args[args.index("--out") + 1] = str(disk / "run")
    return args


def fill(disk: Path, left: int) -> Path:
    """Take all room of a disk but `left` bytes."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - left)
    return filler


def test_a_disk_that_fills_up_during_training(disk: Path, undisturbed: Path) -> None:
    args = on(disk, undisturbed)
    size = sum(file.stat().st_size for file in newest(undisturbed).iterdir())
    child = Child(args, inflicted.steps, partial(inflicted.hang_in_save, calls=1, saves=2))
    assert child.wait_for("saving"), child.said
    child.strike()
    child.end()
    assert newest(disk / "run").name == "step-00000004"
    # Room for the journal, not for another checkpoint.
    filler = fill(disk, size // 2)
    child = Child(args)
    assert child.end() == 1
    assert (
        "no room for checkpoint" in child.said
        and "Traceback" not in child.said
        and "earlier checkpoints are intact" in child.said
    )
    assert [each.name for each in (disk / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    filler.unlink()
    assert "resuming at step 4" in finish(args)
    assert same_run(undisturbed, disk / "run")


def test_a_disk_without_room_for_a_line(disk: Path, undisturbed: Path) -> None:
    args = on(disk, undisturbed)
    finish([*args, "--steps", "4", "--horizon", "12"])
    filler = fill(disk, 0)
    child = Child(args)
    assert child.end() == 1 and "No space left" in child.said and "Traceback" not in child.said, child.log.read_text()
    assert newest(disk / "run").name == "step-00000004"
    filler.unlink()
    finish(args)
    assert same_run(undisturbed, disk / "run")


def test_a_limit_on_the_size_of_files(undisturbed: Path) -> None:
    """As a quota by file: the checkpoint is too large for it."""
    folder = undisturbed.parent
    args = command(folder, "limited", *STEPS)
    child = Child(args, partial(inflicted.small_files, limit=60_000))
    assert child.end() == 1
    assert "could not be written" in child.said and "File too large" in child.said and "Traceback" not in child.said
    assert list((folder / "limited" / "checkpoints").iterdir()) == []
    finish(args)
    assert same_run(undisturbed, folder / "limited")


def test_a_run_folder_that_became_read_only(disk: Path, undisturbed: Path) -> None:
    args = on(disk, undisturbed)
    finish([*args, "--steps", "4", "--horizon", "12"])
    before = {path: path.read_bytes() for path in (disk / "run").rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    child = Child(args)
    assert child.end() == 1 and "Read-only file system" in child.said and "Traceback" not in child.said, child.said
    assert str(disk / "run") in child.said
    assert before == {path: path.read_bytes() for path in before}
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    finish(args)
    assert same_run(undisturbed, disk / "run")
