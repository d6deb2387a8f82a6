"""How fast a small ViT learns shapes, with patches as published and with convolutions before the blocks.

    python benchmarks/stem.py [--steps 400] [--stems patch conv] [--json]

The image tower of ALBEF at `tiny` names the shape of one thing, out of 8, on `scenes:easy,objects=1-1`: white, plain, in two
sizes, drawn anew for every step, so that what is printed is of pictures never seen before. Batches of 64; chance is 1/8.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from multiway.batch import Batch, ViewSpec
from multiway.data.augment import finish
from multiway.data.scenes.graph import SHAPES
from multiway.data.scenes.source import Scenes
from multiway.engine.device import choose_precision
from multiway.methods.albef import AlbefConfig
from multiway.nn.vit import VisionTransformer

BATCH, EVERY = 64, 50


def learn(stem: str, steps: int) -> list[tuple[int, float, float]]:
    """(pictures seen, share named rightly over the last 50 steps, seconds) along the way."""
    torch.manual_seed(0)
    config = replace(AlbefConfig().image, stem=stem)
    tower, head = VisionTransformer(config), nn.Linear(config.width, len(SHAPES))
    parameters = [*tower.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps, pct_start=0.1)
    source, view = Scenes.open("train", "easy,objects=1-1"), ViewSpec(size=config.size)
    bf16 = choose_precision("auto", torch.device("cpu")) == "bf16"
    found, right, began = [], 0.0, time.perf_counter()
    for step in range(steps):
        rows = range(step * BATCH, (step + 1) * BATCH)
        squares = torch.from_numpy(source.squares(rows, config.size)).permute(0, 3, 1, 2)
        shapes = torch.tensor([SHAPES.index(source.scene(row).things[0].shape) for row in rows])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = head(tower(finish(Batch(images=squares), view).images)[0]).float()
        optimiser.zero_grad()
        F.cross_entropy(logits, shapes).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        right += float((logits.argmax(1) == shapes).float().mean()) / EVERY
        if (step + 1) % EVERY == 0:
            found.append(((step + 1) * BATCH, right, time.perf_counter() - began))
            right = 0.0
    return found


def main() -> None:
    """Train each and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--stems", nargs="*", default=["patch", "conv"], choices=["patch", "conv"])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {stem: learn(stem, asked.steps) for stem in asked.stems}
    if asked.json:
        print(json.dumps(found))
        return
    for stem, lines in found.items():
        for pictures, right, seconds in lines:
            print(f"{stem:6s} {pictures:7,d} pictures {right:6.1%}  {seconds:5.0f} s")


if __name__ == "__main__":
    main()
