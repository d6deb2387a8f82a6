"""Pictures a second from shards to squares, beside webdataset's own loader with the same transform.

    python benchmarks/decode.py [--pictures 2000] [--rounds 5] [--workers 0 1 2] [--json]

Shards of JPEG and WebP pictures (quality 90) at two sizes are made once in a temporary folder: drawn scenes, enlarged, softened and
given the noise of a camera, so that files are about as large as photographs' are. Both sides read the same shards, decode, resize the
shorter side and cut out the middle with Pillow (`data/view.py`), and stack batches of 64. Theirs reads shards from front to back, as it
does at its best; ours jumps, as it does in training. `draft` is ours with `--draft`. Both sides take turns within each round; rates are
medians, ratios medians of the rounds' ratios. Without workers the processor's time is what counts, which a busy machine inflates less
than the clock's. Needs `pip install 'multiway[bench]'`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image, ImageFilter

from multiway.batch import ViewSpec
from multiway.data import pixels
from multiway.data.loader import Loader
from multiway.data.open import open_source
from multiway.data.shards import read_shards
from multiway.data.view import draw

BATCH, ROWS_PER_SHARD = 64, 250
SIZES = ((400, 300), (640, 480))
FORMATS = {"jpg": "JPEG", "webp": "WEBP"}


def picture(number: int, size: tuple[int, int], scenes: Any) -> Image.Image:
    """A drawn scene with soft edges and grain."""
    dice = np.random.default_rng(number)
    image = (
        scenes.image(number).convert("RGB").resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1.0))
    )
    light = dice.normal(0.0, 18.0, (size[1] // 16 + 2, size[0] // 16 + 2)).astype(
        np.float32
    )  # slow changes of brightness
    slow = np.asarray(Image.fromarray(light).resize(size, Image.Resampling.BICUBIC))
    grain = dice.normal(0.0, 5.0, (size[1], size[0], 3)).astype(np.float32)
    return Image.fromarray(
        np.clip(np.asarray(image, dtype=np.float32) + slow[:, :, None] + grain, 0, 255).astype(np.uint8)
    )


def make(folder: Path, count: int, size: tuple[int, int], kind: str) -> float:
    """Write shards; kilobytes of a picture on average."""
    scenes, total = open_source("scenes:hard"), 0
    folder.mkdir(parents=True)
    for first in range(0, count, ROWS_PER_SHARD):
        with tarfile.open(folder / f"train-{first // ROWS_PER_SHARD:06d}.tar", "w") as tar:
            for number in range(first, min(first + ROWS_PER_SHARD, count)):
                buffer = io.BytesIO()
                picture(number, size, scenes).save(buffer, FORMATS[kind], quality=90)
                total += buffer.tell()
                for extension, data in ((kind, buffer.getvalue()), ("txt", b"a scene")):
                    member = tarfile.TarInfo(f"{number:06d}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return total / count / 1000


def ours(source: Any, view: ViewSpec, workers: int, reduce: bool, turn: int) -> Iterator[torch.Tensor]:
    """Our training loader; every turn another pass over the data."""
    loader = Loader(source, view, None, BATCH, workers=workers, reduce=reduce)
    steps = len(source) // BATCH
    for batch in loader.batches(turn * steps, (turn + 1) * steps):
        assert batch.images is not None
        yield batch.images


class _Transform:
    """What webdataset's workers do to a picture."""

    def __init__(self, view: ViewSpec) -> None:
        self.view = view

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(draw(image, self.view).copy()).permute(2, 0, 1)


def theirs(folder: Path, view: ViewSpec, workers: int, kind: str) -> Iterator[torch.Tensor]:
    """webdataset, as its documentation has it."""
    shards = sorted(map(str, folder.glob("*.tar")))
    data = webdataset.WebDataset(shards, shardshuffle=False, nodesplitter=webdataset.shardlists.single_node_only)
    data = data.decode("pilrgb").to_tuple(kind).map_tuple(_Transform(view)).batched(BATCH, partial=False)
    for batch in webdataset.WebLoader(data, batch_size=None, num_workers=workers):
        yield batch[0] if isinstance(batch, (list, tuple)) else batch


def rate(batches: Iterator[torch.Tensor], side: int, workers: int) -> float:
    """Pictures a second: of processor time without workers, else of the clock's, from the first batch on."""
    clock = time.process_time if not workers else time.perf_counter
    if not workers:
        began = clock()
        count = sum(len(batch) for batch in batches)
        return count / (clock() - began)
    shape = next(batches).shape
    assert tuple(shape[1:]) == (3, side, side), shape
    began = clock()
    count = sum(len(batch) for batch in batches)
    return count / (clock() - began)


def measure(folder: Path, kind: str, side: int, workers: int, rounds: int) -> dict[str, Any]:
    """Rates of all contenders in turns."""
    source = read_shards(str(folder))["train"]
    view = ViewSpec(size=side, crop="center")
    contenders: dict[str, Callable[[int], Iterator[torch.Tensor]]] = {
        "webdataset": lambda turn: theirs(folder, view, workers, kind),
        "ours": lambda turn: ours(source, view, workers, False, turn),
    }
    if kind == "jpg":
        contenders["draft"] = lambda turn: ours(source, view, workers, True, turn)
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            found[name].append(rate(contenders[name](turn), side, workers))
    return {
        "rates": {name: statistics.median(rates) for name, rates in found.items()},
        "ratios": {
            name: statistics.median(a / b for a, b in zip(rates, found["webdataset"], strict=True))
            for name, rates in found.items()
            if name != "webdataset"
        },
    }


def difference(folder: Path, side: int, rows: int = 100) -> tuple[float, int]:
    """Mean and greatest difference of grey levels that `--draft` makes."""
    source = read_shards(str(folder))["train"]
    plain, reduced = (
        pixels.Pixels(source, ViewSpec(size=side, crop="center"), side, reduce) for reduce in (False, True)
    )
    gaps = [(plain.get(row).int() - reduced.get(row).int()).abs() for row in range(min(rows, len(source)))]
    every = torch.stack(gaps)
    return float(every.float().mean()), int(every.max())


def main() -> None:
    """Make the shards, take turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="webdataset")
    pixels._KEPT = 0  # as of data that do not fit into memory
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        for size in SIZES:
            for kind in FORMATS:
                folder = Path(scratch) / f"{kind}-{size[0]}"
                kilobytes = make(folder, asked.pictures, size, kind)
                for side in asked.sides:
                    gap = difference(folder, side) if kind == "jpg" else None
                    for workers in asked.workers:
                        row = {"kind": kind, "size": size, "kilobytes": kilobytes, "side": side, "workers": workers}
                        row |= {"draft_difference": gap} | measure(folder, kind, side, workers, asked.rounds)
                        table.append(row)
                        if not asked.json:
                            said = "  ".join(f"{name} {value:7.0f}/s" for name, value in row["rates"].items())
                            ratios = "  ".join(f"{name} {value:.2f}x" for name, value in row["ratios"].items())
                            print(
                                f"{kind:4} {size[0]}x{size[1]} ({kilobytes:.0f} kB) to {side:3}, {workers} workers: {said} | {ratios}",
                                flush=True,
                            )
                    if gap is not None and not asked.json:
                        print(
                            f"     draft differs by {gap[0]:.2f} grey levels on average, {gap[1]} at most", flush=True
                        )
    if asked.json:
        print(json.dumps(table))


if __name__ == "__main__":
    main()
