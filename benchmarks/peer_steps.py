"""Training steps beside those of the libraries that have them: same weights, same batch, one process.

    python benchmarks/peer_steps.py                         all contests at both sizes, fp32 and bf16
    python benchmarks/peer_steps.py --contest blip --size tiny --rounds 5 --threads 1
    python benchmarks/peer_steps.py --contest vilt --size mid --profile
    python benchmarks/peer_steps.py --contest beit --size tiny --threads 1 --compile        both sides compiled as well

    vilt   masked words, beside transformers' ViltForMaskedLM
    blip   captions (language modelling alone), beside transformers' BlipForConditionalGeneration
    coca   contrast and captions, beside open_clip's CoCa with its CoCaLoss; needs `make peers`, else it is left out
    siglip     two towers and a question per pair, beside transformers' SiglipModel
    open_clip  CLIP beside open_clip's, with its ClipLoss; needs `make peers`, as coca does
    mae    pictures of which three quarters are hidden, the same on both sides, beside transformers' ViTMAEForPreTraining
    beit   codes of hidden patches, the codes given, beside transformers' BeitForMaskedImageModeling
    vit    a hundred classes, beside transformers' ViTForImageClassification

A step is forward, backward, clipping, AdamW (fused on both sides) and zeroing. Each side has its own copy of the same
weights and is compared in the same precision; the peer attends as it does by default. Nothing is dropped out. Texts are of
different lengths and padded to the longest of the batch, on both sides. A contest in which the first losses differ by more than
rounding is an error. MFU is the matrix products that the step needs (ours, counted) over time, as a share of the
machine's matrix rate in that precision, measured in every round; the peer is charged with the same products. With `--compile` the last
column is mostly what compiling took; steps are timed after it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from contest import DTYPES, Clock, Contender, Precision, interval, operators, products, race, training_step
from peer_entry import SIZES, Entry, Size
from peers_pairs import blip, coca, open_clip, siglip, vilt
from peers_pictures import beit, mae, vit
from torch import Tensor

from multiway.engine.optim import OptimiserSpec, build_optimiser

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 2e-2}
CONTESTS: dict[str, Callable[[Size], Entry | str]] = {
    "vilt": vilt, "blip": blip, "coca": coca, "siglip": siglip, "open_clip": open_clip, "mae": mae, "beit": beit, "vit": vit,
}  # fmt: skip


def enter(entry: Entry, precisions: list[Precision], compiled: bool) -> list[Contender]:
    """Either side in each precision, as it is and, where that is asked for, through torch.compile as well."""
    found = []
    for precision in precisions:
        for side, how in [
            (side, how) for how in (("", ", compiled") if compiled else ("",)) for side in ("peer", "ours")
        ]:
            model: Any = entry.theirs() if side == "peer" else entry.ours()
            if side == "peer":
                spec = OptimiserSpec()
                optimiser = torch.optim.AdamW(
                    model.parameters(), 1e-4, spec.betas, spec.epsilon, spec.weight_decay, fused=True
                )
                loss = entry.their_loss
            else:
                optimiser = build_optimiser(model, OptimiserSpec(), [])
                for group in optimiser.param_groups:
                    group["lr"] = 1e-4
                loss = entry.our_loss

            def of_model(loss: Callable[[Any], Tensor] = loss, model: Any = model) -> Tensor:
                return loss(model)

            # Not `model.compile()`, which compiles nothing but calls of the model itself. Every batch of a contest has the same shape.
            taken = torch.compile(of_model, dynamic=False) if how else of_model
            step = training_step(model, optimiser, taken, precision)
            found.append(Contender(f"{side}, {precision}{how}", precision, step))
    return found


def hold(
    name: str,
    size: str,
    rounds: int,
    steps: int,
    *,
    compiled: bool = False,
    profiled: bool = False,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """One contest at one size, as a record.

    Raises:
        ValueError: if the first losses differ: the sides do not compute the same.
    """
    torch.manual_seed(0)
    entry = CONTESTS[name](SIZES[size])
    record: dict[str, Any] = {"contest": name, "size": size, "pairs": SIZES[size].rows, "shape": asdict(SIZES[size])}
    if isinstance(entry, str):
        return record | {"left_out": entry}
    contenders = enter(entry, list(DTYPES), compiled)
    times = race(contenders, rounds, steps, clock)
    # bf16 writes attention out at these lengths, and the products are those of either precision.
    needed = products(next(each.step for each in contenders if each.name == "ours, bf16"))
    rows = []
    for each in contenders:
        peer = f"peer, {each.precision}"
        if not math.isclose(times.first[peer], times.first[each.name], rel_tol=TOLERANCE[each.precision]):
            raise ValueError(
                f"{name} {size} {each.precision}: the peer's first loss is {times.first[peer]:.6f}, that of {each.name} "
                f"{times.first[each.name]:.6f}; the two do not compute the same, so that their speed says nothing"
            )
        seconds, ratios = times.median(each.name), times.ratios(peer, each.name)
        rows.append({
            "contender": each.name, "milliseconds": 1000 * seconds, "pairs_per_second": SIZES[size].rows / seconds,
            "peer_over_it": times.ratio(peer, each.name), "interval": interval(ratios),
            "mfu": needed / seconds / times.rates[each.precision], "first_loss": times.first[each.name],
            "first_steps_seconds": times.begun[each.name],
        })  # fmt: skip
    record |= {"matrix_rate": times.rates, "gigaflop": needed / 1e9, "rows": rows}
    if profiled:
        record["profile"] = {each.name: operators(each.step) for each in contenders}
    return record


def show(record: dict[str, Any]) -> None:
    """A contest's table."""
    title = f"{record['contest']}, {record['size']}"
    if "left_out" in record:
        print(f"{title}: left out: {record['left_out']}\n")
        return
    rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in record["matrix_rate"].items())
    print(f"{title}: {record['pairs']} pairs, {record['gigaflop']:.1f} GFLOP a step; matrix rate {rates} GFLOP/s")
    print(f"{'':22}{'ms':>9}{'pairs/s':>9}{'peer / it':>11}{'MFU':>7}{'first loss':>12}{'2 first steps':>16}")
    for row in record["rows"]:
        print(
            f"{row['contender']:22}{row['milliseconds']:9.1f}{row['pairs_per_second']:9.0f}{row['peer_over_it']:10.2f}x"
            f"{row['mfu']:7.0%}{row['first_loss']:12.5f}{row['first_steps_seconds']:14.1f} s"
        )
    for name, lines in record.get("profile", {}).items():
        print(f"\n  {name}: milliseconds of each operator's own, calls")
        for key, spent, calls in lines:
            print(f"    {key[:70]:70}{spent:9.2f}{calls:7d}")
    print(flush=True)


def main() -> None:
    """Hold the contests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contest", nargs="*", choices=list(CONTESTS), default=list(CONTESTS))
    parser.add_argument("--size", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2, help="steps per contender and round")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="both sides through torch.compile as well")
    parser.add_argument("--profile", action="store_true", help="list the dearest operators of each side as well")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    if not asked.json:
        print(
            f"torch {torch.__version__}, {torch.get_num_threads()} threads, {asked.rounds} rounds of {asked.steps} steps\n"
        )
    for name in asked.contest:
        for size in asked.size:
            clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
            record = hold(
                name, size, asked.rounds, asked.steps, compiled=asked.compile, profiled=asked.profile, clock=clock
            )
            if asked.json:
                print(json.dumps({"threads": torch.get_num_threads(), **record}), flush=True)
            else:
                show(record)


if __name__ == "__main__":
    main()
