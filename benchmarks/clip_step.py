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

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from contest import Contender, Precision, race, training_step
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


def contenders() -> list[Contender]:
    """Ours as `--precision auto` runs it, and the peer in its two forms; each with its own copy of the same weights."""
    torch.manual_seed(0)
    source = peer()
    images, ids = torch.randn(ROWS, 3, SIZE, SIZE), torch.randint(4, VOCABULARY, (ROWS, LENGTH))
    ids[:, -1] = 3
    mask = torch.ones_like(ids)
    found: list[Contender] = []
    theirs_in: dict[str, Precision] = {"transformers, default (fp32)": "fp32", "transformers, bf16 autocast": "bf16"}
    for name, precision in theirs_in.items():
        model = peer()
        model.load_state_dict(source.state_dict())
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1)

        def theirs(model: CLIPModel = model) -> torch.Tensor:
            return model(input_ids=ids, attention_mask=mask, pixel_values=images, return_loss=True).loss

        found.append(Contender(name, precision, training_step(model, optimiser, theirs, precision)))
    config = clip_config(json.loads(source.config.to_json_string(use_diff=False)))
    batch = Batch(
        images=images, text=ids, text_mask=mask.bool(), image_id=torch.arange(ROWS), text_id=torch.arange(ROWS)
    )
    chosen: Precision = "bf16" if choose_precision("auto", torch.device("cpu")) == "bf16" else "fp32"
    ours_in: dict[str, Precision] = {f"multiway, auto ({chosen})": chosen, "multiway, fp32": "fp32"}
    for name, precision in ours_in.items():
        method = Clip(config)
        method.load_state_dict(theirs_to_ours(source.state_dict(), config))
        optimiser = build_optimiser(method, OptimiserSpec(), [])
        for group in optimiser.param_groups:
            group["lr"] = 1e-4

        def ours(method: Clip = method) -> torch.Tensor:
            return method(batch, World(), Step()).total

        found.append(Contender(name, precision, training_step(method, optimiser, ours, precision)))
    return found


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
    taking = contenders()
    times = race(taking, asked.rounds, asked.steps)
    rates = times.rates
    own = next(each.name for each in taking if each.name.startswith("multiway, auto"))
    rows = []
    for each in taking:
        median = times.median(each.name)
        rows.append({"contender": each.name, "images_per_second": ROWS / median,
                     "ours_is_faster_by": times.ratio(each.name, own),
                     "mfu": flops() / median / rates[each.precision], "first_loss": times.first[each.name]})  # fmt: skip
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
