"""How near a training step of ViT-S/16 at 224 pixels comes to the machine's bf16 matrix rate (MFU), and where the rest goes.

    python benchmarks/vit_mfu.py                         two threads, batch 32: the figure of docs/speed.md
    python benchmarks/vit_mfu.py --threads 1             on one core
    python benchmarks/vit_mfu.py --batch 8 16 32 64      by batch
    python benchmarks/vit_mfu.py --stock-allocator       without `engine/allocator.py`
    python benchmarks/vit_mfu.py --compile
    python benchmarks/vit_mfu.py --profile               the dearest operators, and the pages that a step fetches

22.0 M parameters, a thousand classes read off the class token; forward under bf16 autocast, backward, clipping, AdamW, as the training
loop does it. Products are counted over the step: the last block computes the class token's row alone, and that is all that is charged.
The rate is the best of 1024 x 1024 bf16 products, taken anew in every round. Two figures: by the clock, which is what a user waits for
and which other programs spoil, and by processor time, in which the threads' time is added up and the rate is one thread's; it leaves
out what threads wait for one another, and stays the same beside other work.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from contest import interval, matrix_rate, operators, products, training_step
from torch import Tensor, nn

from multiway.engine.allocator import keep_freed_memory
from multiway.engine.device import has_fast_bf16
from multiway.engine.optim import OptimiserSpec, build_optimiser
from multiway.nn.vit import VisionConfig, VisionTransformer

SMALL = VisionConfig(size=224, patch=16, width=384, layers=12, heads=6)  # DeiT-S (arXiv 2012.12877, table 1)
CLASSES = 1000


class Classifier(nn.Module):
    """ViT-S/16 and a linear head on its class token."""

    def __init__(self) -> None:
        super().__init__()
        self.image = VisionTransformer(SMALL)
        self.head = nn.Linear(SMALL.width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> (B, 1000) logits."""
        return self.head(self.image(images, tokens=False).pooled)  # type: ignore[no-any-return]


def training(batch: int, compiled: bool) -> Callable[[], float]:
    """A whole step on random pictures."""
    torch.manual_seed(0)
    model = Classifier()
    optimiser = build_optimiser(model, OptimiserSpec(), [])
    for group in optimiser.param_groups:
        group["lr"] = 1e-3
    images, labels = torch.randn(batch, 3, SMALL.size, SMALL.size), torch.arange(batch) % CLASSES
    if compiled:
        model.compile(dynamic=False)
    return training_step(model, optimiser, lambda: F.cross_entropy(model(images).float(), labels), "bf16")


def pages() -> int:
    """That this process has fetched from the kernel so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(batch: int, rounds: int, compiled: bool, threads: int) -> dict[str, list[float]]:
    """Of each round: seconds by the clock and of the processor, the two rates, and pages fetched."""
    step = training(batch, compiled)
    needed = products(training(batch, False)) if compiled else products(step)
    step(), step()
    found: dict[str, list[float]] = {
        "flops": [float(needed)],
        "clock": [],
        "processor": [],
        "rate": [],
        "alone": [],
        "pages": [],
    }
    for _ in range(rounds):
        found["rate"].append(matrix_rate(torch.bfloat16))
        torch.set_num_threads(1)
        found["alone"].append(matrix_rate(torch.bfloat16, clock=time.process_time))
        torch.set_num_threads(threads)
        before, clock, processor = pages(), time.perf_counter(), time.process_time()
        step()
        found["clock"].append(time.perf_counter() - clock)
        found["processor"].append(time.process_time() - processor)
        found["pages"].append(float(pages() - before))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--stock-allocator", action="store_true", help="let the C library hand memory back after every use"
    )
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    kept = not asked.stock_allocator and keep_freed_memory()
    if not has_fast_bf16(torch.device("cpu")):
        print("this processor has no bf16 products; the share is of what torch does instead")
    print(f"torch {torch.__version__}, {asked.threads} threads, freed memory {'kept' if kept else 'as the C library has it'}"
          f"{', compiled' if asked.compile else ''}")  # fmt: skip
    for batch in asked.batch:
        found = measure(batch, asked.rounds, asked.compile, asked.threads)
        needed, rate, alone = found["flops"][0], max(found["rate"]), max(found["alone"])
        shares = [needed / seconds / rate for seconds in found["clock"]]
        own = [needed / seconds / alone for seconds in found["processor"]]
        print(
            f"batch {batch}: {needed / 1e9:.0f} GFLOP, {batch / statistics.median(found['clock']):.1f} pictures/s; "
            f"rate {rate / 1e9:.0f} GFLOP/s, one thread {alone / 1e9:.0f}; pages a step {statistics.median(found['pages']):.0f}"
        )
        for name, values in (("by the clock", shares), ("by processor time", own)):
            low, high = interval(values)
            print(f"  MFU {name}: {statistics.median(values):.1%} ({low:.1%} to {high:.1%}), best {max(values):.1%}")
        if asked.profile:
            step = training(batch, asked.compile)
            step(), step()
            for key, spent, calls in operators(step, most=20):
                print(f"    {key[:60]:60}{spent:9.2f} ms{calls:7d}")


if __name__ == "__main__":
    main()
