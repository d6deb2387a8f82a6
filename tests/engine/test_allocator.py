"""Memory kept by the C library: what is freed is there for the next step, and settings of the environment win."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")

SCRIPT = """
import resource, sys
import torch
from multiway.engine.allocator import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "kept" else None)
def step():
    parts = [torch.ones(10_000_000) for _ in range(2)]  # 40 MB each, 9,766 pages; above what glibc learns to keep by itself
for _ in range(12):  # blocks find their places within a few steps
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **environment: str) -> tuple[str, int]:
    """What was returned, and how many pages were fetched from the kernel in four steps."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRE"))}
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], env=known | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, count = done.stdout.split()
    return told, int(count)


def test_pages_are_fetched_once() -> None:
    """Without the setting each step fetches its 19,532 pages anew."""
    assert faults("stock")[1] > 70_000
    told, count = faults("kept")
    assert told == "True" and count < 1_000


def test_the_environment_decides_where_it_says_something() -> None:
    told, count = faults("kept", MALLOC_MMAP_THRESHOLD_="131072")
    assert told == "False" and count > 70_000
