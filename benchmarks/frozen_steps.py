"""What freezing saves: forward and backward of a tuned CLIP, all trained, the picture tower frozen, all frozen, and with LoRA.

    python benchmarks/frozen_steps.py [--rounds 15]

Six picture blocks and four text blocks of 256, 64 pixels in patches of 8, 12 pictures and 16 questions; one process, by turns, one thread.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from contest import Contender, race

from multiway.batch import Batch
from multiway.config import to_json
from multiway.methods.clip import ClipConfig
from multiway.methods.finetune import FineTune, FineTuneConfig
from multiway.methods.method import Step
from multiway.world import World

WAYS = {
    "all trained": {},
    "image frozen": {"freeze": ("image",)},
    "base frozen": {"freeze": ("base",)},
    "LoRA on attention": {"lora": "attention"},
}


def contender(name: str, batch: Batch) -> Contender:
    """Forward and backward of one way."""
    config = ClipConfig()
    image = replace(config.image, width=256, layers=6, heads=4)
    text = replace(config.text, width=256, layers=4, heads=4, vocabulary=1000, context=16)
    under = to_json(replace(config, image=image, text=text))
    torch.manual_seed(0)
    tuned = FineTune(FineTuneConfig(method="clip", of=under, kind="asked", answers=("yes", "no"), **WAYS[name])).train()  # type: ignore[arg-type]

    def step() -> float:
        loss = tuned(batch, World(), Step()).total
        loss.backward()
        tuned.zero_grad()
        return float(loss.detach())

    return Contender(name, "fp32", step)


def main() -> None:
    """Let them take turns and print medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch = Batch(
        images=torch.randn(12, 3, 64, 64), text=torch.randint(4, 1000, (16, 12)), text_mask=torch.ones(16, 12, dtype=torch.bool),
        pictures=torch.arange(16)[:, None] % 12, targets=torch.rand(16, 2),
    )  # fmt: skip
    times = race([contender(name, batch) for name in WAYS], asked.rounds, 1)
    for name in WAYS:
        print(f"{name}: {1000 * times.median(name):.0f} ms, {times.ratio('all trained', name):.2f}x")


if __name__ == "__main__":
    main()
