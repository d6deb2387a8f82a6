"""How the time and the memory of a training step grow with batch, tokens, depth, width and ranks: fitted exponents, and a plot.

    python benchmarks/growth.py                                      the table
    python benchmarks/growth.py --plot docs/images/growth.svg
    python benchmarks/growth.py --along tokens --rounds 9 --json

CLIP's step from a base of 32 pairs, pictures of 64 pixels in patches of 8, towers of 4 blocks, 128 wide; one of these is changed at a
time. Time is the processor's, of one thread, as the sizes take turns within rounds. Memory is what the forward pass keeps for the
backward, in bytes of distinct storages, parameters left out: it is exact, and what batch and tokens are paid with. Ranks are processes
that train together over gloo, each with the base's batch: time is a rank's own, by its processor and by the clock, which is only worth
something where every rank has a core to itself. An exponent is the slope of a line through the points in double logarithms.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.distributed as dist
from contest import Contender, race, training_step
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from multiway.batch import Batch
from multiway.engine.allocator import keep_freed_memory
from multiway.engine.optim import OptimiserSpec, build_optimiser
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.method import Method, Step
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

PATCH, LENGTH, VOCABULARY = 8, 16, 512


@dataclass(frozen=True)
class Shape:
    """Of a step: pairs, side of the pictures in pixels, blocks of either tower and their width."""

    batch: int = 32
    pixels: int = 64
    depth: int = 4
    width: int = 128

    @property
    def tokens(self) -> int:
        """Of a picture, the class token among them."""
        return (self.pixels // PATCH) ** 2 + 1


ALONG: dict[str, tuple[str, tuple[int, ...]]] = {
    "batch": ("batch", (16, 32, 64, 128)),
    "tokens": ("pixels", (64, 96, 128, 192)),
    "depth": ("depth", (2, 4, 8, 16)),
    "width": ("width", (128, 256, 512)),
}
RANKS = (1, 2)


def clip(shape: Shape) -> tuple[Method, Batch]:
    """CLIP of a shape, and random pairs for it."""
    torch.manual_seed(0)
    heads = shape.width // 64
    image = VisionConfig(shape.pixels, PATCH, shape.width, shape.depth, heads, pre_norm=True, patch_bias=False)
    text = TextConfig(VOCABULARY, LENGTH, shape.width, shape.depth, heads, pool="eos", eos_id=3)
    ids = torch.randint(4, VOCABULARY, (shape.batch, LENGTH))
    ids[:, -1] = 3
    number = torch.arange(shape.batch)
    images = torch.randn(shape.batch, 3, shape.pixels, shape.pixels)
    batch = Batch(
        images=images, text=ids, text_mask=torch.ones_like(ids, dtype=torch.bool), image_id=number, text_id=number
    )
    return Clip(ClipConfig(image=image, text=text, embedding=shape.width)).train(), batch


def kept(method: Method, batch: Batch) -> int:
    """Bytes that the forward pass keeps for the backward, each storage once, without parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in method.parameters()}
    found: dict[int, int] = {}
    alive: list[Tensor] = []  # a storage that is freed would hand its address on

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        method(batch, World(), Step())
    return sum(found.values())


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the least-squares line through (log size, log value)."""
    x, y = [math.log(each) for each in sizes], [math.log(each) for each in values]
    middle, level = statistics.fmean(x), statistics.fmean(y)
    return sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def sweep(name: str, rounds: int) -> dict[str, Any]:
    """Time and memory along one axis."""
    attribute, values = ALONG[name]
    shapes = [replace(Shape(), **{attribute: value}) for value in values]
    contenders, memory = [], []
    for shape in shapes:
        method, batch = clip(shape)
        memory.append(kept(method, batch))
        optimiser = build_optimiser(method, OptimiserSpec(), [])

        def loss(method: Method = method, batch: Batch = batch) -> Tensor:
            return method(batch, World(), Step()).total

        contenders.append(Contender(str(shape), "bf16", training_step(method, optimiser, loss, "bf16")))
    times = race(contenders, rounds, 1, time.process_time)
    sizes = [shape.tokens if name == "tokens" else getattr(shape, attribute) for shape in shapes]
    seconds = [times.median(each.name) for each in contenders]
    return {
        "along": name, "sizes": sizes, "milliseconds": [1000 * each for each in seconds], "MiB": [each / 2**20 for each in memory],
        "time_exponent": exponent(sizes, seconds), "memory_exponent": exponent(sizes, memory),
    }  # fmt: skip


def of_rank(rank: int, size: int, port: int, rounds: int, found: Any) -> None:
    """The steps of one rank; the first puts medians of (processor, clock) seconds into the queue `found`."""
    torch.set_num_threads(1)
    keep_freed_memory()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = World()
    if size > 1:
        dist.init_process_group("gloo", rank=rank, world_size=size)
        world = World(rank, size)
    method, batch = clip(Shape())
    stepper: Any = DistributedDataParallel(method, gradient_as_bucket_view=True) if size > 1 else method
    optimiser = build_optimiser(method, OptimiserSpec(), [])
    step = training_step(method, optimiser, lambda: stepper(batch, world, Step()).total, "bf16")
    step(), step()
    processor, clock = [], []
    for _ in range(rounds):
        began, wall = time.process_time(), time.perf_counter()
        step()
        processor.append(time.process_time() - began)
        clock.append(time.perf_counter() - wall)
    if rank == 0:
        found.put((statistics.median(processor), statistics.median(clock)))
    if size > 1:
        dist.destroy_process_group()


def over_ranks(rounds: int) -> dict[str, Any]:
    """A step of the base on one rank and on more, each with the base's batch."""
    context = torch.multiprocessing.get_context("spawn")
    processor, clock = [], []
    for size in RANKS:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        queue = context.SimpleQueue()
        torch.multiprocessing.spawn(of_rank, (size, port, rounds, queue), nprocs=size)
        spent, passed = queue.get()
        processor.append(1000 * spent)
        clock.append(1000 * passed)
    return {"along": "ranks", "sizes": list(RANKS), "milliseconds": processor, "by_the_clock": clock,
            "time_exponent": exponent(RANKS, processor)}  # fmt: skip


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """A panel for each axis: time and memory as multiples of the smallest size's, both logarithmic; dotted, growth in proportion."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams |= {"font.size": 9, "svg.fonttype": "none"}
    figure, panels = pyplot.subplots(1, len(records), figsize=(2.6 * len(records), 2.6), constrained_layout=True)
    for panel, record in zip(panels, records, strict=True):
        sizes = record["sizes"]
        panel.loglog(sizes, [size / sizes[0] for size in sizes], ":", color="0.6", linewidth=1, label="in proportion")
        for name, label, style in (("milliseconds", "time", "o-"), ("MiB", "memory", "s--")):
            values = record[name]
            exponent = record["time_exponent" if name == "milliseconds" else "memory_exponent"]
            label = f"{label}, power {exponent:.2f}"
            panel.loglog(
                sizes, [value / values[0] for value in values], style, markersize=4, linewidth=1.2, label=label
            )
        highest = max(*(record["milliseconds"][-1] / record["milliseconds"][0], record["MiB"][-1] / record["MiB"][0]))
        ticks = [2**power for power in range(6) if 2**power <= 1.2 * highest]
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.set_yticks(ticks, [f"{tick}x" for tick in ticks])
        panel.minorticks_off()
        panel.set_title(record["along"], fontsize=9)
        panel.legend(fontsize=7, frameon=False)
    panels[0].set_ylabel("times the smallest")
    figure.savefig(path)


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--along", nargs="+", choices=[*ALONG, "ranks"], default=[*ALONG, "ranks"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    records = [over_ranks(asked.rounds) if name == "ranks" else sweep(name, asked.rounds) for name in asked.along]
    if asked.plot:
        plot([record for record in records if record["along"] != "ranks"], asked.plot)
    if asked.json:
        print(json.dumps(records))
        return
    print("| | sizes | ms a step | MiB kept | time grows as | memory as |\n|---|---|---|---|---|---|")
    for record in records:
        numbers = [
            ", ".join(f"{each:.0f}" for each in record.get(name, ())) for name in ("sizes", "milliseconds", "MiB")
        ]
        memory = f"{record['memory_exponent']:.2f}" if "memory_exponent" in record else ""
        print(f"| {record['along']} | {' | '.join(numbers)} | {record['time_exponent']:.2f} | {memory} |")
        if "by_the_clock" in record:
            print(f"| by the clock | | {', '.join(f'{each:.0f}' for each in record['by_the_clock'])} | | | |")


if __name__ == "__main__":
    main()
