"""A training step of ALBEF beside one of CLIP with the same towers, and what its parts take.

    python benchmarks/albef_step.py [--rounds 8] [--batch 64] [--threads 1] [--json]

Both read the same batch of scenes at 64 px; CLIP's text tower has as many layers as ALBEF's two halves together. The steps
take turns within each round; figures are medians over rounds. Each part is measured by itself, forward and backward (the twin
forward alone), on the tensors of a real step; what is left of the whole step is the contrastive loss, the optimiser, the twin's
step and the queue. Then the whole step's operators, the dearest first; how much of it are products, and how near it comes to the
matrix rate (MFU). On one thread times are the processor's, which other work on the machine changes little. Memory is the greatest resident size of a process that does three steps, less that before the first (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from contest import DTYPES, Clock, Precision, matrix_rate, operators, products
from torch import Tensor

from multiway.batch import Batch
from multiway.engine.allocator import keep_freed_memory
from multiway.engine.device import choose_precision
from multiway.engine.optim import build_optimiser
from multiway.methods.albef import Albef
from multiway.methods.method import Method, Step
from multiway.recipes.albef import albef
from multiway.recipes.clip import clip
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import prepare
from multiway.world import World

STEP = Step(index=600, epoch=0, progress=0.6)  # negatives are hard and the twin's targets at full weight


def recipes(batch: int) -> dict[str, Recipe]:
    """ALBEF at `tiny`, and CLIP with its towers."""
    first = replace(albef(), settings=replace(albef().settings, batch=batch))
    method = first.method
    text = replace(method.text, layers=method.text.layers + method.fusion_layers, causal=True, pool="last")
    towers = replace(clip().method, image=method.image, text=text, embedding=method.embedding)
    second = replace(clip(), method=towers, data=first.data, view=first.view, tokenizer=first.tokenizer)
    return {"albef": first, "clip": replace(second, settings=replace(second.settings, batch=batch))}


def whole_step(recipe: Recipe) -> tuple[Method, Batch, Callable[[], None]]:
    """A method, a batch, and a training step of it."""
    ready = prepare(recipe, World())
    method, optimiser = ready.method.train(), build_optimiser(ready.method, recipe.settings.optimiser, [])
    batch = ready.finish(ready.loader.batch(0))
    bf16 = choose_precision("auto", torch.device("cpu")) == "bf16"

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = method(batch, World(), STEP)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimiser.step()
        method.after_step(STEP, losses.updates)

    return method, batch, step


def parts(method: Albef, batch: Batch) -> dict[str, Callable[[], None]]:
    """The step's parts, each on its own."""
    bf16 = choose_precision("auto", torch.device("cpu")) == "bf16"
    assert batch.text is not None and batch.text_mask is not None and batch.masked_text is not None
    ids, mask, masked = batch.text, batch.text_mask, batch.masked_text
    both, both_mask = torch.cat([ids, masked]), torch.cat([mask, mask])
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    with torch.no_grad(), autocast:
        reps = {name: tensor.detach() for name, tensor in method.encode(batch, STEP).items()}
        pairs = method.mine(reps, batch, World(), STEP)
    leaves = ("image_tokens", "text_tokens", "masked_tokens")

    def backward(make: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            with autocast:
                loss = make()
            loss.backward()

        return run

    def fused() -> dict[str, Tensor]:
        return {name: reps[name].clone().requires_grad_(name in leaves) for name in reps}

    def matching() -> Tensor:
        own, leaf = torch.arange(len(ids)), fused()
        shown, read = (
            torch.cat(each) for each in ((own, own, pairs["image_of_text"]), (own, pairs["text_of_image"], own))
        )
        return method._match(leaf["image_tokens"], leaf["text_tokens"], mask, shown, read).float().sum()

    def words() -> Tensor:
        leaf = fused()
        return method.student.guess(leaf["masked_tokens"], mask, leaf["image_tokens"], batch.masked).float().sum()

    def image() -> Tensor:
        embedding, tokens = method.student.encode_image(batch.images)
        return embedding.float().sum() + tokens.float().sum()

    def text() -> Tensor:
        embedding, tokens = method.student.encode_text(both, both_mask)
        return embedding.float().sum() + tokens.float().sum()

    @torch.no_grad()
    def twin() -> None:
        with autocast:
            _, tokens = method.twin.encode_image(batch.images)
            method.twin.encode_text(ids, mask)
            _, hidden = method.twin.encode_text(masked, mask)
            method.twin.guess(hidden, mask, tokens, batch.masked)

    return {
        "student reads the picture": backward(image),
        "student reads the text, as it is and masked": backward(text),
        "matching: three fused rows a pair": backward(matching),
        "masked words: one fused row a pair": backward(words),
        "twin, forward alone": twin,
    }


def seconds(run: Callable[[], None], clock: Clock) -> float:
    """Of one call."""
    began = clock()
    run()
    return clock() - began


# Operators that are matrix products, as the stopwatch names them.
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")


def profile(step: Callable[[], None], spent: float, clock: Clock) -> dict[str, object]:
    """Where a step's time goes: its operators, the share of products, and of the matrix rate."""
    precision: Precision = "bf16" if choose_precision("auto", torch.device("cpu")) == "bf16" else "fp32"
    needed, rate = products(step), max(matrix_rate(DTYPES[precision], clock=clock) for _ in range(3))
    lines = operators(step, most=100)
    whole = sum(line[1] for line in lines)
    return {
        "gigaflop": round(needed / 1e9, 2),
        "matrix_rate": round(rate / 1e9),
        "mfu": round(needed / spent / rate, 3),
        "products": round(sum(line[1] for line in lines if line[0] in PRODUCTS) / whole, 3),
        "operators": [(name, round(each, 2), calls) for name, each, calls in [*lines[:16], lines[-1]]],
    }


def resident(what: str) -> int:
    """KiB of this process, now (`VmRSS`) or at most (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])


def memory(name: str, batch: int) -> int:
    """MiB that three steps need, in a process of their own."""
    command = [sys.executable, __file__, "--memory-of", name, "--batch", str(batch)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    clock: Clock = time.process_time if asked.threads == 1 else time.perf_counter
    keep_freed_memory()  # as the training loop does
    torch.manual_seed(0)
    if asked.memory_of:
        _, _, step = whole_step(recipes(asked.batch)[asked.memory_of])
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far was that of learning a tokeniser
        before = resident("VmRSS")
        for _ in range(3):
            step()
        print((resident("VmHWM") - before) // 1024)
        return
    built = {name: whole_step(recipe) for name, recipe in recipes(asked.batch).items()}
    method, batch, _ = built["albef"]
    assert isinstance(method, Albef)
    runs = {name: step for name, (_, _, step) in built.items()} | parts(method, batch)
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(asked.rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run, clock))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    ratio = statistics.median(a / c for a, c in zip(taken["albef"], taken["clip"], strict=True))
    found: dict[str, Any] = {
        "batch": asked.batch,
        "threads": torch.get_num_threads(),
        "milliseconds": {name: round(1000 * value, 1) for name, value in middle.items()},
        "images_per_second": {name: round(asked.batch / middle[name], 1) for name in built},
        "albef_over_clip": round(ratio, 2),
        "memory_mib": {name: memory(name, asked.batch) for name in built},
        "profile": profile(built["albef"][2], middle["albef"], clock),
    }
    if asked.json:
        print(json.dumps(found))
        return
    print(f"batch {asked.batch}, {found['threads']} threads, medians of {asked.rounds} rounds")
    for name in built:
        rate, size = found["images_per_second"][name], found["memory_mib"][name]
        print(f"{name:6s} {1000 * middle[name]:7.0f} ms a step, {rate:6.0f} images/s, {size} MiB")
    print(f"albef / clip: {ratio:.2f}")
    rest = middle["albef"]
    for name in [name for name in runs if name not in built]:
        rest -= middle[name]
        print(f"  {name:45s} {1000 * middle[name]:6.0f} ms {middle[name] / middle['albef']:5.0%}")
    print(f"  {'the rest':45s} {1000 * rest:6.0f} ms {rest / middle['albef']:5.0%}")
    told = found["profile"]
    print(
        f"{told['gigaflop']} GFLOP a step, matrix rate {told['matrix_rate']} GFLOP/s, MFU {told['mfu']:.0%}; products are "
        f"{told['products']:.0%} of the profiled step"
    )
    for name, spent, calls in told["operators"]:
        print(f"  {name:45s} {spent:8.1f} ms {calls:5d} calls")


if __name__ == "__main__":
    main()
