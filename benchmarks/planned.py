"""`multiway plan` beside what happens: memory and time of a few real steps, on one thread of this processor.

python benchmarks/planned.py                          about 5 minutes
python benchmarks/planned.py clip:bf16 mae:fp32

Memory is the peak that the allocator's events come to. Time is counted in seconds of the processor, in rates and steps alike, so
that other work on the machine counts little.
"""

import sys
import time

import torch

from multiway.recipes.command import parse
from multiway.workflows.plan import plan
from multiway.workflows.plan_batch import open_rows
from multiway.workflows.plan_check import measured
from multiway.workflows.plan_devices import measure
from multiway.workflows.plan_ranks import Hardware

time.perf_counter = time.process_time

DATA = ["--data", "scenes:easy,objects=1-3,samples=256", "--device", "cpu", "--threads", "1"]
WAYS = {
    "fp32": ["--batch", "64", "--precision", "fp32"],
    "bf16": ["--batch", "64", "--precision", "bf16"],
    "cache": ["--batch", "64", "--precision", "fp32", "--cache", "16"],
    "accumulate": ["--batch", "64", "--precision", "fp32", "--accumulate", "4"],
}
CELLS = [
    *(f"{name}:{way}" for name in ("clip", "albef") for way in WAYS),
    *(f"{name}:{way}" for name in ("mae", "moco", "byol", "dino", "vilt", "coca") for way in ("fp32", "bf16")),
]


def main(cells: list[str]) -> None:
    """Print a row for each cell."""
    torch.set_num_threads(1)
    print(
        "| recipe | memory planned | measured | ratio | step planned | measured | ratio |\n|---|---|---|---|---|---|---|"
    )
    for cell in cells:
        name, _, way = cell.partition(":")
        recipe = parse([name, *DATA, *WAYS[way]], "plan")
        rows = open_rows(recipe)
        before = measure(torch.device("cpu"))
        real = measured(recipe)
        after = measure(torch.device("cpu"))
        found = [plan(recipe, rows, Hardware(device)) for device in (before, after)]
        seconds = sum(each.step_seconds for each in found) / 2
        memory = found[0].peak
        print(
            f"| {name} {way} | {memory / 2**20:.1f} MiB | {real.peak / 2**20:.1f} MiB | {memory / real.peak:.2f} "
            f"| {1000 * seconds:.0f} ms | {1000 * real.seconds:.0f} ms | {seconds / real.seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:] or CELLS)
