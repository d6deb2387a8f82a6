"""One training step of CoCa beside CLIP, ALBEF and BLIP with equal towers: milliseconds, products, and what the losses add.

CoCa's claim (arXiv 2205.01917, section 3.2) is that captions cost little on top of a contrast, since both losses share one pass
over picture and text; ALBEF and BLIP pass over them several times, and a twin does as well. Here all have the same image
tower and texts of as many blocks in all.

    python benchmarks/caption_step.py --threads 2 --batch 64 --repeats 9
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from multiway.batch import Batch, DataInfo
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.blip import Blip, BlipConfig
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.coca import Coca, CocaConfig
from multiway.methods.method import Method, Step
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

INFO = DataInfo(vocabulary=512, context=40, special={"pad": 0, "mask": 1, "bos": 2, "eos": 3})
LATE = Step(index=1, epoch=1, progress=0.9)  # past every ramp and every wait
IMAGE = VisionConfig(size=64, patch=8, width=128, layers=4, heads=2, stem="conv")


def methods(blocks: int) -> dict[str, Method]:
    """Each with IMAGE and `blocks` blocks of text, in its own way."""
    causal = TextConfig(width=128, heads=2, layers=blocks, causal=True, pool="eos", eos_id=3, context=0)
    halves = replace(causal, layers=blocks // 2, pool="last")
    both_ways = TextConfig(width=128, heads=2, layers=blocks, causal=False, pool="class", context=0)
    coca = CocaConfig(image=replace(IMAGE, pool="mean"), text=halves, multimodal_layers=blocks // 2)
    albef = AlbefConfig(image=IMAGE, text=replace(both_ways, layers=blocks // 2), fusion_layers=blocks // 2)
    return {
        "clip": Clip(ClipConfig(image=IMAGE, text=causal).resolve(INFO)),
        "coca, contrast alone": Coca(replace(coca, caption=0.0).resolve(INFO)),
        "coca": Coca(coca.resolve(INFO)),
        "coca, open_clip's form": Coca(
            replace(coca, pooler="single", cross="after", class_mask="legacy").resolve(INFO)
        ),
        "albef": Albef(albef.resolve(INFO)),
        "blip": Blip(BlipConfig(image=IMAGE, text=both_ways).resolve(INFO)),
    }


def pairs(rows: int, longest: int) -> Batch:
    """Random pictures and texts of different lengths, with every fifth word masked."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(longest // 2, longest + 1, (rows,), generator=generator)
    mask = torch.arange(longest) < lengths[:, None]
    ids = torch.randint(4, 512, (rows, longest), generator=generator).masked_fill(~mask, 0)
    ids[:, 0] = 2
    ids[torch.arange(rows), lengths - 1] = 3
    masked = mask & (torch.arange(longest) % 5 == 2)
    numbers = torch.arange(rows)
    return Batch(
        images=torch.randn(rows, 3, 64, 64, generator=generator), text=ids, text_mask=mask,
        masked_text=ids.masked_fill(masked, 1), masked=masked, image_id=numbers, text_id=numbers, sample_index=numbers,
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    batch = pairs(args.batch, args.length)
    torch.manual_seed(0)
    built = methods(args.blocks)

    def step(method: Method) -> None:
        method.zero_grad(set_to_none=True)
        method(batch, World(), LATE).total.backward()

    times: dict[str, list[float]] = {name: [] for name in built}
    for turn in range(args.repeats + 1):  # in turns, so that a busy moment hits all alike; the first warms up
        for name, method in built.items():
            start = time.perf_counter()
            step(method)
            if turn:
                times[name].append(time.perf_counter() - start)
    print(f"{args.batch} pairs, {args.length} tokens at most, {args.threads} threads, fp32, torch {torch.__version__}")
    print(f"{'':<26}{'ms/pair':>9}{'x clip':>8}{'GFLOP/pair':>12}{'x clip':>8}{'M trained':>11}")
    first: tuple[float, float] | None = None
    for name, method in built.items():
        with FlopCounterMode(display=False) as counter:
            step(method)
        spent, work = statistics.median(times[name]) / args.batch * 1e3, counter.get_total_flops() / args.batch / 1e9
        first = first or (spent, work)
        trained = sum(p.numel() for p in method.parameters() if p.requires_grad) / 1e6
        print(f"{name:<26}{spent:>9.2f}{spent / first[0]:>8.2f}{work:>12.3f}{work / first[1]:>8.2f}{trained:>11.2f}")


if __name__ == "__main__":
    main()
