"""What a million rows in a thousand shards cost: to index, to open, to hold, to shuffle, to read.

    python benchmarks/shards_at_scale.py [--shards 1000] [--samples 1000] [--folder made/before] [--json]

Shards of tiny pictures with captions as long as CC12M's are made once (`--folder` keeps them). Printed are: rows indexed a second; how
long a fresh process takes to open them and what it then holds in memory of its own and mapped; a batch's rows as the order of an epoch
gives them, for more rows than any disk has; and how local each way of shuffling reads: shards that a batch touches, and, with a cache of
a hundredth of the set, how often the set is downloaded in one epoch.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multiway.data.order import Order, ShardShuffle

_WORDS = [
    "the",
    "a",
    "man",
    "woman",
    "dog",
    "red",
    "blue",
    "house",
    "car",
    "street",
    "view",
    "photo",
    "of",
    "in",
    "on",
    "with",
    "small",
    "large",
    "green",
    "old",
    "new",
    "white",
    "black",
    "stock",
    "vector",
    "background",
    "illustration",
    "beach",
    "sunset",
]

_OPENS = """
import json, sys, time
import multiway.data.loader
from multiway.data.shards import read_shards
def held():
    found = dict(line.split(":") for line in open("/proc/self/status") if line.startswith(("RssAnon", "RssFile")))
    return {name: int(value.split()[0]) / 1024 for name, value in found.items()}
before, times = held(), []
for _ in range(5):
    began = time.perf_counter()
    source = read_shards(sys.argv[1])["train"]
    times.append(time.perf_counter() - began)
opened, began = held(), time.process_time()
for row in range(0, len(source), max(1, len(source) // 20000)):
    source.row(row)
seconds = time.process_time() - began
after = held()
print(json.dumps({"rows": len(source), "open_ms": sorted(times)[2] * 1e3, "row_us": seconds / min(20000, len(source)) * 1e6,
  "own_MiB": opened["RssAnon"] - before["RssAnon"], "mapped_MiB": after["RssFile"] - before["RssFile"]}))
"""


def make(folder: Path, shards: int, samples: int) -> None:
    """Write the shards that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (3, 4, 5)).save(buffer, "JPEG")
    dice = random.Random(0)
    for shard in range(shards):
        path = folder / f"train-{shard:06d}.tar"
        if path.exists():
            continue
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in range(samples):
                caption = " ".join(dice.choices(_WORDS, k=dice.randint(6, 18))).encode()
                for extension, data in (("jpg", buffer.getvalue()), ("txt", caption)):
                    member = tarfile.TarInfo(f"{shard:05d}{sample:04d}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def indexed(folder: Path, workers: int) -> float:
    """Seconds of `multiway data index`; of what is indexed already it only reads the indices."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "multiway", "data", "index", str(folder), "--workers", str(workers), "--json"]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def opened(folder: Path) -> dict[str, float]:
    """Of a fresh process, after the first opening."""
    done = subprocess.run([sys.executable, "-c", _OPENS, str(folder)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def drawn(rows: int, batch: int = 4096) -> float:
    """Milliseconds of processor time of one batch's rows."""
    order, times = Order(rows, batch, 0), []
    for step in range(7):
        began = time.process_time()
        order.at(rows // batch // 2 + step)
        times.append(time.process_time() - began)
    return statistics.median(times) * 1e3


def local(order: Order, size: int, shards: int, steps: int) -> dict[str, float]:
    """Shards that a batch touches, and downloads per epoch, in sets, with room for a hundredth of the shards."""
    touched, misses, kept = [], 0, OrderedDict[int, None]()
    room = max(1, shards // 100)
    for step in range(steps):
        of = order.at(step)[1] // size
        touched.append(len(np.unique(of)))
        for shard in of.tolist():
            if shard in kept:
                kept.move_to_end(shard)
                continue
            misses += 1
            kept[shard] = None
            if len(kept) > room:
                kept.popitem(last=False)
    return {
        "shards_of_a_batch": statistics.median(touched),
        "downloads": misses / shards * order.rows / (steps * order.batch),
    }


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--folder", default="")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"
        folder = Path(asked.folder or f"{scratch}/shards")
        make(folder, asked.shards, asked.samples)
        there = len(list(folder.glob("*.index.json")))
        seconds = indexed(folder, 2)
        found["index"] = {
            "seconds": seconds,
            "shards_indexed_before": there,
            "rows_per_second": asked.shards * asked.samples / seconds,
        }
        found["open"] = opened(folder)
    found["order_ms"] = {f"{rows:,}": drawn(rows) for rows in (10**6, 10**9)}
    rows, batch = asked.shards * asked.samples, 256
    starts = np.arange(asked.shards + 1) * asked.samples
    orders = {"global": Order(rows, batch, 0)}
    orders |= {f"shards, window {k}": Order(rows, batch, 0, ShardShuffle(starts, k, 0)) for k in (1, 8, 32)}
    found["locality"] = {name: local(order, asked.samples, asked.shards, 400) for name, order in orders.items()}
    if asked.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        for key, each in value.items():
            said = "  ".join(f"{k} {v:,.1f}" for k, v in each.items()) if isinstance(each, dict) else f"{each:,.2f}"
            print(f"{name:10} {key:24} {said}")


if __name__ == "__main__":
    main()
