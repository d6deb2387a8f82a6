"""One of two ranks dies: the other stops within seconds and says why, and `torchrun` starts both again."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import ENVIRONMENT
from faults import inflicted
from faults.harness import PATIENCE, Child, command, finish, newest, same_run, write_data

pytestmark = pytest.mark.faults

STEPS = ("--steps", "24", "--checkpoint-every", "4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("ranks") / "own")


def both(args: list[str], *faults: object) -> list[Child]:
    """The command on two ranks that meet at a port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    return [Child(args, *faults, RANK=str(rank), LOCAL_RANK=str(rank), **meeting) for rank in range(2)]


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    for child in both(command(folder, "straight", *STEPS)):
        assert child.end() == 0, child.log.read_text()
    return folder / "straight"


@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_rank_stops_within_seconds_and_says_why(folder: Path, undisturbed: Path, victim: int) -> None:
    out = f"lost-{victim}"
    args = command(folder, out, *STEPS)
    children = both(args, inflicted.steps)
    assert children[victim].wait_for("step", 9), children[victim].said
    time.sleep(random.Random(victim).uniform(0, 0.05))
    children[victim].strike()
    died = time.monotonic()
    other = children[1 - victim]
    code = other.end()
    assert time.monotonic() - died < 30 and children[victim].end() == -signal.SIGKILL
    assert code == 1 and "another rank of" in other.said and "has ended" in other.said, other.log.read_text()
    assert (
        "Traceback" not in other.said
        and f"The checkpoint of step {int(newest(folder / out).name[5:])} is intact" in other.said
    )
    for child in both(args):
        assert child.end() == 0, child.log.read_text()
    assert same_run(undisturbed, folder / out)


def test_torchrun_starts_the_ranks_again(folder: Path, undisturbed: Path) -> None:
    """Rank 1 kills itself in the first of two attempts; the end is that of the run to which nothing happened."""
    args = command(folder, "restarted", *STEPS)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        "--standalone",
    ]
    script = Path(inflicted.__file__).with_name("dying_rank.py")
    path = os.pathsep.join([ENVIRONMENT["PYTHONPATH"], str(script.parents[1])])
    # docs/cluster.md says why the last one is needed.
    environment = ENVIRONMENT | {"PYTHONPATH": path, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    launcher = subprocess.Popen(
        [*launch, str(script), *args], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, said = launcher.communicate(timeout=5 * PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(launcher.pid, signal.SIGKILL)
        raise
    assert launcher.returncode == 0, said[-3000:]
    # From step 8, unless its checkpoint was still being written.
    assert "dies at step 10" in said and re.search(r"resuming at step [48]\b", said)
    assert same_run(undisturbed, folder / "restarted")


def test_a_rank_that_runs_out_of_memory_takes_the_others_along(folder: Path) -> None:
    args = command(folder, "hungry", *STEPS)
    with_memory, without = both(args, inflicted.hungry_on_rank_one)
    assert without.end() == 1 and "out of memory" in without.said and "--batch 8" in without.said, (
        without.log.read_text()
    )
    assert with_memory.end() == 1 and "another rank of" in with_memory.said, with_memory.log.read_text()


def test_both_ranks_are_asked_to_stop(folder: Path, undisturbed: Path) -> None:
    """A scheduler tells all of them, but at instants of its own: they agree on the step, and save once."""
    args = command(folder, "asked", *STEPS)
    children = both(args, inflicted.steps)
    assert children[0].wait_for("step", 9), children[0].said
    for child in children:
        child.strike(signal.SIGTERM)
    assert [child.end() for child in children] == [0, 0], children[0].said
    assert "the same command goes on" in children[0].said
    for child in both(args):
        assert child.end() == 0, child.log.read_text()
    assert same_run(undisturbed, folder / "asked")


def test_a_run_of_two_ranks_goes_on_with_one(folder: Path, undisturbed: Path) -> None:
    args = command(folder, "shrunk", *STEPS)
    children = both(args, inflicted.steps)
    assert children[0].wait_for("step", 9)
    for child in children:
        child.strike()
    for child in children:
        child.end()
    assert "resuming at step" in finish(args)
    assert newest(folder / "shrunk").name == newest(undisturbed).name
