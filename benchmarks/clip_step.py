"""A training step of a tiny CLIP beside `transformers.CLIPModel` of the same shape: same weights, same batch, one process.

    python benchmarks/clip_step.py [--rounds 12] [--json]

The contenders take turns within each round, so that a machine whose speed drifts drifts for all of them; the figures are
medians over rounds and the ratio is the median of the rounds' ratios. A step is zero_grad, forward, backward, clipping and AdamW.
The peer's default is fp32 with its default attention (sdpa); its second form is the same under bf16 autocast. Both sides get
texts padded to the longest of the batch. Beside them stands the machine's own matrix rate, measured in the same process, and
the share of it (MFU) that each step reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

from multiway.batch import Batch
from multiway.engine.device import choose_precision
from multiway.engine.optim import OptimiserSpec, build_optimiser
from multiway.hub.transformers_clip import clip_config, theirs_to_ours
from multiway.methods.clip import Clip
from multiway.methods.method import Step
from multiway.world import World

WIDTH, LAYERS, HEADS, SIZE, PATCH, LENGTH, VOCABULARY, ROWS = 128, 4, 2, 32, 4, 12, 1024, 128


def peer() -> CLIPModel:
    """The shape of the comparison: towers of 4 layers, 128 wide; 64 patches and 12 tokens."""
    shared = dict(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        hidden_act="gelu",
    )
    text = dict(vocab_size=VOCABULARY, max_position_embeddings=32, eos_token_id=3, bos_token_id=0, pad_token_id=1)
    return CLIPModel(
        CLIPConfig(
            text_config=dict(**shared, **text),
            vision_config=dict(**shared, image_size=SIZE, patch_size=PATCH),
            projection_dim=WIDTH,
        )
    ).train()


def flops() -> float:
    """Multiply-adds x 2 of one training step: three times the forward's matrix products (backward is two of them)."""
    tokens = ROWS * ((SIZE // PATCH) ** 2 + 1), ROWS * LENGTH
    lengths = (SIZE // PATCH) ** 2 + 1, LENGTH
    layer = sum(12 * WIDTH**2 * n + 2 * WIDTH * n * length for n, length in zip(tokens, lengths, strict=True))
    edges = tokens[0] * WIDTH * 3 * PATCH**2 + 2 * ROWS * WIDTH * WIDTH + ROWS * ROWS * WIDTH
    return 3 * 2 * (LAYERS * layer + edges)


def matrix_rate(dtype: torch.dtype, size: int = 1024, seconds: float = 0.2) -> float:
    """Operations per second of a square matrix product, the best of a short run; taken in every round."""
    left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def stepper(
    model: nn.Module, optimiser: torch.optim.Optimizer, loss: Callable[[], torch.Tensor], autocast: bool
) -> Callable[[], float]:
    """One whole training step, returning its loss."""

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return float(value.detach())

    return step


def contenders() -> dict[str, Callable[[], float]]:
    """Ours as `--precision auto` runs it, and the peer in its two forms; each with its own copy of the same weights."""
    torch.manual_seed(0)
    source = peer()
    images, ids = torch.randn(ROWS, 3, SIZE, SIZE), torch.randint(4, VOCABULARY, (ROWS, LENGTH))
    ids[:, -1] = 3
    mask = torch.ones_like(ids)
    steps: dict[str, Callable[[], float]] = {}
    for name, autocast in (("transformers, default (fp32)", False), ("transformers, bf16 autocast", True)):
        model = peer()
        model.load_state_dict(source.state_dict())
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1)

        def theirs(model: CLIPModel = model) -> torch.Tensor:
            return model(input_ids=ids, attention_mask=mask, pixel_values=images, return_loss=True).loss

        steps[name] = stepper(model, optimiser, theirs, autocast)
    config = clip_config(json.loads(source.config.to_json_string(use_diff=False)))
    batch = Batch(
        images=images, text=ids, text_mask=mask.bool(), image_id=torch.arange(ROWS), text_id=torch.arange(ROWS)
    )
    precision = choose_precision("auto", torch.device("cpu"))
    forms = {f"multiway, auto ({precision})": precision == "bf16", "multiway, fp32": False}
    for name, autocast in forms.items():
        method = Clip(config)
        method.load_state_dict(theirs_to_ours(source.state_dict(), config))
        optimiser = build_optimiser(method, OptimiserSpec(), [])
        for group in optimiser.param_groups:
            group["lr"] = 1e-4

        def ours(method: Clip = method) -> torch.Tensor:
            return method(batch, World(), Step()).total

        steps[name] = stepper(method, optimiser, ours, autocast)
    return steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=3, help="steps per contender and round")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    steps = contenders()
    first = {name: step() for name, step in steps.items()}  # warm-up; the losses must agree before speed means anything
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    rates = {"fp32": 0.0, "bf16": 0.0}
    for _ in range(asked.rounds):
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            rates[name] = max(rates[name], matrix_rate(dtype))
        for name, step in steps.items():
            began = time.perf_counter()
            for _ in range(asked.steps):
                step()
            seconds[name].append((time.perf_counter() - began) / asked.steps)
    own = next(iter(name for name in steps if name.startswith("multiway, auto")))
    rows = []
    for name, times in seconds.items():
        rate = rates["bf16" if "bf16" in name else "fp32"]
        median = statistics.median(times)
        ratio = statistics.median(theirs / ours for theirs, ours in zip(times, seconds[own], strict=True))
        rows.append({"contender": name, "images_per_second": ROWS / median, "ours_is_faster_by": ratio,
                     "mfu": flops() / median / rate, "first_loss": first[name]})  # fmt: skip
    if asked.json:
        print(json.dumps({"matrix_rate": rates, "threads": torch.get_num_threads(), "rows": rows}))
        return
    print(
        f"matrix rate: fp32 {rates['fp32'] / 1e9:.0f}, bf16 {rates['bf16'] / 1e9:.0f} GFLOP/s; {torch.get_num_threads()} threads"
    )
    print(f"{'':32}{'images/s':>10}{'ours / it':>11}{'MFU':>7}{'first loss':>12}")
    for row in rows:
        print(
            f"{row['contender']:32}{row['images_per_second']:10.0f}{row['ours_is_faster_by']:10.2f}x"
            f"{row['mfu']:7.0%}{row['first_loss']:12.5f}"
        )


if __name__ == "__main__":
    main()
