"""Where a run comes from: what was started, when, with which versions, on which data."""

from __future__ import annotations

import contextlib
import platform
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from multiway.version import __version__
from multiway.world import World

__all__ = ["commit", "machine_name", "start_record"]


def start_record(world: World, changed: list[str]) -> dict[str, Any]:
    """Facts of one start of a run, as JSON.

    Args:
        changed: operational settings that differ from the start before, `path: before -> after`.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "multiway": __version__,
        "commit": commit(Path(__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "device": machine_name(),
        "ranks": world.size,
        "changed": changed,
    }


def machine_name() -> str:
    """What the accelerator, or else the processor, calls itself."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError):  # no /proc but on Linux, where platform.processor() is empty
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit(package: Path) -> str | None:
    """The git commit of the source in `package`, with `+changes` if files differ from it; None outside a checkout.

    An installed package may lie inside somebody else's repository (a virtual environment in it), whose commit says
    nothing about us; so the package has to be tracked there.
    """
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return _git(package, "rev-parse", "HEAD") + (
            "+changes" if _git(package, "status", "--porcelain", "-uno", ".") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
