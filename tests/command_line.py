"""Runs as a user starts them: the command in a process of its own, which can be killed, and `torchrun`.

By default that process is forked from one that has imported everything (`fork_server.py`): most of what a short run takes is imports.
`fresh=True` starts an interpreter, or torchrun, as the user does.
"""

import functools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
    "GLOO_SOCKET_IFNAME": "lo",
}

# What every test of the training path wants of a run: small pictures, one thread, everything logged.
QUICK = [
    "--device", "cpu", "--precision", "fp32", "--threads", "1", "--log-every", "1",
    "--view.size", "16", "--method.image.size", "16", "--method.image.width", "32", "--method.image.heads", "2",
    "--method.text.width", "32", "--method.text.heads", "2", "--method.embedding", "24",
]  # fmt: skip


def own_data(folder: Path, out: str) -> list[str]:
    """Options that name the captions and pictures in a folder, and the run folder in it."""
    return ["--data", str(folder / "captions.jsonl"), "--images", str(folder / "pictures"), "--out", str(folder / out)]


LONGEST = 240.0  # seconds that a command may take


def multiway(*args: str, ranks: int = 1, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, or one for each rank, with the environment that torchrun gives it."""
    if not fresh:
        return _forked(args, ranks)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launch, "-m", "multiway", *args]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=LONGEST)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """One for all tests of this process; it ends with it, when its input does."""
    command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
    return subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(**request: Any) -> Any:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    print(json.dumps(request), file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


def _begin(args: tuple[str, ...] | list[str], out: str, err: str, **environment: str) -> int:
    """The process's number."""
    return int(_ask(args=list(args), out=out, err=err, env=ENVIRONMENT | environment))


def _over(process: int) -> int | None:
    """How it ended, negative for a signal; None while it runs. To be asked no more once it has said."""
    return _ask(wait=process)  # type: ignore[no-any-return]


def _forked(args: tuple[str, ...], ranks: int) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w+") as out, tempfile.NamedTemporaryFile("w+") as err:
        environment: list[dict[str, str]] = [{}]
        if ranks > 1:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = str(probe.getsockname()[1])
            meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
            meet["LOCAL_WORLD_SIZE"] = str(ranks)
            environment = [meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
        running = {_begin(args, out.name, err.name, **each) for each in environment}
        codes: list[int] = []
        deadline = time.monotonic() + LONGEST
        while running:
            for process in tuple(running):
                code = _over(process)
                if code is not None:
                    running.remove(process)
                    codes.append(code)
            if running and (any(codes) or time.monotonic() > deadline):  # as torchrun, no rank outlives another's failure
                for process in running:
                    os.kill(process, signal.SIGKILL)
                deadline += LONGEST
            time.sleep(0.005)
        return subprocess.CompletedProcess(["multiway", *args], next(filter(None, codes), 0), out.read(), err.read())


def lines(run: Path) -> int:
    """Steps that a run has logged so far."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def kill_after(args: list[str], run: Path, wanted: int) -> None:
    """Start the run, wait until it has logged `wanted` steps, then SIGKILL at a moment that nobody chose."""
    with tempfile.NamedTemporaryFile("w+") as err:
        process, code = _begin(args, os.devnull, err.name), None
        deadline = time.monotonic() + LONGEST / 2
        while lines(run) < wanted and code is None and time.monotonic() < deadline:
            time.sleep(0.002)
            code = _over(process)
        time.sleep(random.random() * 0.03)
        if code is None:
            os.kill(process, signal.SIGKILL)
        while code is None:
            time.sleep(0.002)
            code = _over(process)
        assert code == -signal.SIGKILL, f"it was over before it could be killed:\n{err.read()}"
