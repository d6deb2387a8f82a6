"""Processes that are forked from one that has imported everything (`fork_server.py`): begun in milliseconds, not in seconds.

`spawn` stands in for `torch.multiprocessing.spawn`; `command_line.py` starts `multiway` in this way.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

__all__ = ["ENVIRONMENT", "LONGEST", "begin", "finish", "over", "spawn"]

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
    "GLOO_SOCKET_IFNAME": "lo",
}
LONGEST = 240.0
"""Seconds that processes may take."""


@functools.cache
def _server() -> subprocess.Popen[str]:
    """One for all tests of this process; it ends when this does, and its input with it."""
    command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=ENVIRONMENT, cwd=Path(__file__).parent, stdin=pipe, stdout=pipe, text=True)


def _ask(**request: Any) -> Any:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    print(json.dumps(request), file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


def begin(out: str, err: str, environment: dict[str, str] | None = None, **work: Any) -> int:
    """Fork.

    Args:
        out, err: files that exist, for what it says.
        environment: beside `ENVIRONMENT`.
        work: `args` of the command, or `call`, see `spawn`.

    Returns:
        The process's number.
    """
    return int(_ask(out=out, err=err, env=ENVIRONMENT | (environment or {}), folder=str(Path.cwd()), **work))


def over(process: int) -> int | None:
    """How it ended, negative for a signal; None while it runs. To be asked no more once it has said."""
    return _ask(wait=process)  # type: ignore[no-any-return]


def finish(processes: Collection[int]) -> int:
    """Wait for all; 0, or how the first that failed did. No rank outlives another's failure, as under torchrun."""
    running, failed, deadline = set(processes), 0, time.monotonic() + LONGEST
    while running:
        for process in tuple(running):
            code = over(process)
            if code is not None:
                running.remove(process)
                failed = failed or code
        if running and (failed or time.monotonic() > deadline):
            failed = failed or -signal.SIGKILL
            for process in running:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.003)
    return failed


def spawn(work: Callable[..., None], args: tuple[Any, ...] = (), nprocs: int = 1) -> None:
    """`work(rank, *args)` in processes of their own.

    Args:
        work: of a module, so that it can be found by its name.

    Raises:
        RuntimeError: with what they said, if one of them fails.
    """
    with tempfile.NamedTemporaryFile("w+") as said, tempfile.NamedTemporaryFile() as kept:
        pickle.dump((work, args), kept)
        kept.flush()
        call = {"of": kept.name, "path": sys.path}
        code = finish([begin(said.name, said.name, call=call | {"rank": rank}) for rank in range(nprocs)])
        if code:
            raise RuntimeError(f"{work.__name__} ended with {code}:\n{Path(said.name).read_text()}")
