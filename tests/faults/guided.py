"""The fuzzer guided by coverage: `make fuzz TARGET=shard SECONDS=60`. Needs atheris, which is no dependency of the project.

Its bytes are not the file but the dice: each decides what is damaged and how, so that no round is spent on files that are refused at
their first byte. A finding stops it with the trace and leaves `crash-...`, which as an argument repeats it.
"""

import os
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["multiway.data", "multiway.engine", "tarfile", "json"], enable_loader_override=False
):
    import torch
    from faults.targets import TARGETS

TARGET = os.environ.get("TARGET", "shard")


class Dice(random.Random):
    """Chance taken from given bytes; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._left = data
        super().__init__(0)

    def getrandbits(self, count: int) -> int:
        size = (count + 7) // 8
        taken, self._left = self._left[:size], self._left[size:]
        return int.from_bytes(taken, "big") & ((1 << count) - 1)

    def random(self) -> float:
        return self.getrandbits(16) / 65536


def main() -> None:
    """Fuzz the target named by the environment; arguments are libFuzzer's."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        case = TARGETS[TARGET](Path(folder))
        atheris.Setup(sys.argv, lambda data: case(Dice(data)) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
