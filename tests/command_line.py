"""Runs as a user starts them: the command in a process of its own, which can be killed, and `torchrun`.

By default that process is forked from one that has imported everything (`fork_server.py`): most of what a short run takes is imports.
`fresh=True` starts an interpreter, or torchrun, as the user does.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from forked import ENVIRONMENT, LONGEST, begin, finish, over

from multiway.workflows.arms import CellFailed

# What every test of the training path wants of a run: small pictures, one thread, everything logged.
QUICK = [
    "--device", "cpu", "--precision", "fp32", "--threads", "1", "--log-every", "1",
    "--view.size", "16", "--method.image.size", "16", "--method.image.width", "32", "--method.image.heads", "2",
    "--method.text.width", "32", "--method.text.heads", "2", "--method.embedding", "24",
]  # fmt: skip


def own_data(folder: Path, out: str) -> list[str]:
    """Options that name the captions and pictures in a folder, and the run folder in it."""
    return ["--data", str(folder / "captions.jsonl"), "--images", str(folder / "pictures"), "--out", str(folder / out)]


def multiway(*args: str, ranks: int = 1, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, or one for each rank, with the environment that torchrun gives it."""
    if not fresh:
        return _forked(args, ranks)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launch, "-m", "multiway", *args]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=LONGEST)


def _forked(args: tuple[str, ...], ranks: int) -> subprocess.CompletedProcess[str]:
    environments: list[dict[str, str]] = [{}]
    if ranks > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        meet |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        environments = [meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    with tempfile.NamedTemporaryFile("w+") as out, tempfile.NamedTemporaryFile("w+") as err:
        code = finish([begin(out.name, err.name, each, args=args) for each in environments])
        return subprocess.CompletedProcess(["multiway", *args], code, out.read(), err.read())


def cell_command(*words: str) -> None:
    """In place of `workflows.arms.run_command`: forked, and its peak of memory unknown.

    Raises:
        CellFailed: as there.
    """
    done = multiway(*words)
    if done.returncode:
        raise CellFailed(f"multiway {' '.join(words)} failed:\n{done.stderr}")


def lines(run: Path) -> int:
    """Steps that a run has logged so far."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def kill_after(args: list[str], run: Path, wanted: int) -> None:
    """Start the run, wait until it has logged `wanted` steps, then SIGKILL at a moment that nobody chose."""
    with tempfile.NamedTemporaryFile("w+") as err:
        process, code = begin(os.devnull, err.name, args=args), None
        deadline = time.monotonic() + LONGEST / 2
        while lines(run) < wanted and code is None and time.monotonic() < deadline:
            time.sleep(0.002)
            code = over(process)
        time.sleep(random.random() * 0.03)
        if code is None:
            os.kill(process, signal.SIGKILL)
            code = finish([process])
        assert code == -signal.SIGKILL, f"it was over before it could be killed:\n{err.read()}"
