"""Exported graphs beside PyTorch: bytes, and milliseconds for each batch, fp32 and int8, one process, in turns.

    python benchmarks/onnx_speed.py RUN [--parts image text match caption] [--batches 1 16] [--length 16] [--tokens 12] [--rounds 9]
                              [--threads 1] [--check-int8] [--json]

RUN is anything that `multiway export` takes. It is exported once into a temporary folder. `image`, `text` and `match` are one call each;
`caption` writes that many tokens greedily, with the cache, on either side, none of them ending a text early. Both sides start from the
same tensors and have the same threads; contenders take turns within each round, in an order that changes; times are medians over the
rounds, ratios medians of the rounds' ratios. With `--check-int8`, what 8 bits cost on the run's own evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from multiway.abilities import Encoded
from multiway.hub.graphs import graphs
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.onnx_runtime import Exported
from multiway.nn.generate import Generation
from multiway.workflows.export import Asked, export
from multiway.workflows.export_measure import Origin

Call = Callable[[], Any]


@torch.no_grad()
def calls(
    model: Model,
    folder: Path,
    part: str,
    batch: int,
    length: int,
    tokens: int,
    threads: int,
    variants: Sequence[str] = ("fp32", "int8"),
) -> dict[str, Call]:
    """What each contender does of a part, by its name."""
    ran = {variant: Exported(folder, variant, threads) for variant in variants}
    method: Any = model.method
    if part == "caption":
        image = method.encode_image(torch.randn(batch, 3, model.processor.view.size, model.processor.view.size))
        seen = Encoded(image.tokens[:, 0, :0], image.tokens)
        settings = Generation(max_length=1 + tokens, min_length=1 + tokens)
        found: dict[str, Call] = {"PyTorch": lambda: method.generate(seen, settings)}
        return found | {
            f"onnxruntime {name}": _writer(each, image.tokens.numpy(), tokens) for name, each in ran.items()
        }
    (graph,) = [each for each in graphs(model, (part,)) if each.name == part]
    inputs = graph.example({"batch": batch, "length": length}, seed=0)
    feed = {port.name: each.numpy() for port, each in zip(graph.inputs, inputs, strict=True)}
    found = {"PyTorch": lambda: graph(inputs)}
    return found | {f"onnxruntime {name}": (lambda each=each: each.run(part, feed)) for name, each in ran.items()}


def _writer(ran: Exported, image_tokens: Any, tokens: int) -> Call:
    start, end = ran.about["caption"]["start"], ran.about["caption"]["end"]

    def write() -> None:
        ids, kept = np.full((len(image_tokens), 1), start, np.int64), {}
        for _ in range(tokens):
            logits = ran.next_logits(image_tokens, ids, kept)
            logits[:, end] = -np.inf
            ids = np.concatenate([ids, logits.argmax(1)[:, None]], 1)

    return write


@torch.inference_mode()
def race(contenders: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds + 1):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            begin = time.perf_counter()
            contenders[name]()
            if number:
                times[name].append(time.perf_counter() - begin)
    return times


def summary(part: str, batch: int, times: dict[str, list[float]], beside: str = "PyTorch") -> list[dict[str, Any]]:
    """A row for each contender: its median, and how many times as fast it is as the one that it stands beside."""
    found = []
    for name, own in times.items():
        ratios = [theirs / mine for theirs, mine in zip(times[beside], own, strict=True)]
        row = {"part": part, "batch": batch, "by": name, "ms": 1000 * statistics.median(own)}
        found.append(row | {"faster": statistics.median(ratios), "from": min(ratios), "to": max(ratios)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--parts", nargs="*", default=["image", "text", "match", "caption"])
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 16])
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check-int8", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = load(asked.run)
    said: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "onnx"
        origin = Origin.of(asked.run, "", (), 0) if asked.check_int8 else None
        report = export(
            model, Asked(folder, asked.run, int8=True), None, origin, lambda said: print(said, file=sys.stderr)
        )
        for part in [each for each in asked.parts if each in report.parts]:
            for batch in asked.batches:
                times = race(calls(model, folder, part, batch, asked.length, asked.tokens, asked.threads), asked.rounds)
                said += summary(part, batch, times)
    if asked.json:
        print(json.dumps({"bytes": dict(report.sizes), "rows": said, "losses": list(report.losses)}))
        return
    print(f"{model.name}: " + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in report.sizes.items()))
    for row in said:
        print(
            f"{row['part']:8} batch {row['batch']:<4} {row['by']:18} {row['ms']:9.2f} ms  {row['faster']:5.2f}x "
            f"[{row['from']:.2f}, {row['to']:.2f}]"
        )
    for loss in report.losses:
        print(f"{loss['task']} {loss['data']} {loss['metric']:28} {loss['fp32']:.4f} -> {loss['int8']:.4f}")


if __name__ == "__main__":
    main()
