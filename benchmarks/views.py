"""How many views a second are drawn, by method and side, and where the time goes.

    python benchmarks/views.py [--threads 1] [--device cpu] [--json]

Random pictures, as they leave the loader: uint8 squares and the numbers drawn for each row. What is timed is `augment.finish`: crop,
mirror, jitter, greyscale, blur, solarise, normalise. The best of several runs is printed, because on a shared machine the others
measure the neighbours. In the environment of `make peers` lightly's SimCLR transform, a picture at a time through Pillow, stands
beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from multiway.batch import Batch, ViewSpec
from multiway.data import view_presets
from multiway.data.augment import finish
from multiway.data.views import CropSpec, ViewsSpec

CASES: dict[str, tuple[Callable[[int], ViewsSpec], int, int]] = {
    # name: preset, side of the pictures, rows
    "mae 32": (view_presets.mae, 32, 256),
    "simclr 32 (CIFAR)": (view_presets.simclr_cifar, 32, 256),
    "simclr 32": (view_presets.simclr, 32, 256),
    "byol 32": (view_presets.byol, 32, 256),
    "swav 32 + 16": (view_presets.swav, 32, 256),
    "dino 32 + 16": (view_presets.dino, 32, 256),
    "simclr 64": (view_presets.simclr, 64, 256),
    "simclr 224": (view_presets.simclr, 224, 8),
    "dino 224 + 96": (view_presets.dino, 224, 8),
}
PARTS: dict[str, CropSpec] = {
    "nothing": CropSpec(32),
    "crop, bilinear": CropSpec(32, scale=(0.08, 1.0), flip=0.5),
    "crop, bicubic": CropSpec(32, scale=(0.08, 1.0), flip=0.5, resample="bicubic"),
    "jitter, all rows": CropSpec(32, jitter=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    "jitter without hue": CropSpec(32, jitter=1.0, brightness=0.8, contrast=0.8, saturation=0.8),
    "greyscale, all rows": CropSpec(32, grey=1.0),
    "blur, all rows": CropSpec(32, blur=1.0),
    "solarise, all rows": CropSpec(32, solarise=1.0),
}


def seconds(views: ViewsSpec, side: int, rows: int, device: torch.device, repeats: int = 15) -> float:
    """Of one batch: the best of several; on one CPU thread the processor's time, which a busy machine inflates less than the clock's."""
    generator = torch.Generator().manual_seed(0)
    squares = torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=generator).to(device)
    draws = torch.rand(rows, views.draws, dtype=torch.float64, generator=generator)
    batch, view = Batch(images=squares, draws=draws.to(device)), ViewSpec(size=side)
    clock = time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    best = float("inf")
    for _ in range(repeats):
        began = clock()
        finish(batch, view, views)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, clock() - began)
    return best


def lightly_seconds(side: int, rows: int) -> float | None:
    """Of the same two SimCLR views for as many pictures; None where lightly is not installed."""
    if find_spec("lightly") is None:
        return None
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "peers"))
    from with_torchvision import ensure_torchvision

    ensure_torchvision()
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(input_size=side)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    best = float("inf")
    for _ in range(3):
        began = time.thread_time()
        for _ in range(rows):
            transform(picture)
        best = min(best, time.thread_time() - began)
    return best


def main() -> None:
    """Time each and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    found: dict[str, dict[str, float]] = {}
    for name, (preset, side, rows) in CASES.items():
        views = preset(side)
        took = seconds(views, side, rows, device)
        found[name] = {"views/s": rows * len(views.views) / took, "images/s": rows / took, "ms": 1e3 * took}
    for side, rows in ((32, 256), (224, 8)):
        if (theirs := lightly_seconds(side, rows)) is not None:
            found[f"lightly simclr {side}"] = {
                "views/s": 2 * rows / theirs,
                "images/s": rows / theirs,
                "ms": 1e3 * theirs,
            }
    idle = seconds(ViewsSpec((PARTS["nothing"],)), 32, 256, device)
    for name, kind in PARTS.items():
        took = seconds(ViewsSpec((replace(kind),)), 32, 256, device)
        found[f"part: {name}"] = {"us/view": 1e6 * (took - (0.0 if name == "nothing" else idle)) / 256}
    if asked.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(f"{name:28s} " + "  ".join(f"{value:10,.1f} {unit}" for unit, value in figures.items()))


if __name__ == "__main__":
    main()
