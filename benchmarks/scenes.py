"""How fast scenes are made, described and drawn, on one core: training should not have to wait for its data.

    python benchmarks/scenes.py                       all difficulties at 32, 64 and 128 pixels, about ten seconds
    python benchmarks/scenes.py --sides 224 --batch 64

Prints microseconds a picture of each part, and pictures a second with everything that a training batch needs (the
scene, its four captions, its pixels), as medians over batches of scenes that were never seen before. The aim is 1,000 pictures
of 64 pixels a second with captions.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from multiway.data.scenes.draw import draw_scenes
from multiway.data.scenes.grammar import captions
from multiway.data.scenes.graph import DIFFICULTIES, make_scene
from multiway.data.scenes.source import Scenes

ROUNDS = 9


def machine() -> str:
    """Processor's name, where the system tells it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores, of which one is used"


def microseconds(run: Callable[[int], object], batch: int) -> float:
    """Median time a picture of `run(round)`; the first round only warms up."""
    times = []
    for number in range(ROUNDS + 1):
        start = time.perf_counter()
        run(number)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) / batch * 1e6


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Scenes a second.")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 128])
    arguments = parser.parse_args()
    batch = arguments.batch
    print(f"{machine()}; Python {platform.python_version()}, numpy {np.__version__}; batches of {batch}")
    print(f"{'world':>8} {'side':>5} {'make':>7} {'4 captions':>11} {'draw':>7}   us a picture {'pictures/s':>12}")
    for name, difficulty in DIFFICULTIES.items():
        scenes = [make_scene(number, 0, difficulty) for number in range(batch)]
        made = microseconds(lambda n: [make_scene(n * batch + i, 1, difficulty) for i in range(batch)], batch)  # noqa: B023
        said = microseconds(lambda n: [captions(scene, 4, seed=n) for scene in scenes], batch)  # noqa: B023
        for side in arguments.sides:
            drawn = microseconds(lambda n: draw_scenes(scenes, side), batch)  # noqa: B023
            source = Scenes.open("train", f"{name},seed={side}")

            def everything(number: int) -> None:
                rows = np.arange(number * batch, (number + 1) * batch)
                source.squares(rows, side)  # noqa: B023
                for row in rows.tolist():
                    source.row(row)  # noqa: B023

            rate = 1e6 / microseconds(everything, batch)
            print(f"{name:>8} {side:>5} {made:>7.0f} {said:>11.0f} {drawn:>7.0f} {'':>14} {rate:>12,.0f}", flush=True)


if __name__ == "__main__":
    main()
