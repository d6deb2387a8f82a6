"""Runs as a user starts them: the command in a process of its own, which can be killed, and `torchrun`."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def multiway(*args: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, or one for each rank."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    return subprocess.run(
        [sys.executable, *launch, "-m", "multiway", *args], env=ENVIRONMENT, capture_output=True, text=True, timeout=240
    )


def lines(run: Path) -> int:
    """Steps that a run has logged so far."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def kill_after(args: list[str], run: Path, wanted: int) -> None:
    """Start the run, wait until it has logged `wanted` steps, then SIGKILL at a moment that nobody chose."""
    process = subprocess.Popen(
        [sys.executable, "-m", "multiway", *args], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while lines(run) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(random.random() * 0.03)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"it was over before it could be killed:\n{said}"
