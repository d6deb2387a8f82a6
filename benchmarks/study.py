"""Ablations of one method each: arms that differ in one thing, trained on equal samples and measured on all they can do.

    python benchmarks/study.py vlmo-experts [--samples 38400] [--seeds 0] [--out runs/study] [--threads 2]

    vlmo-experts     an expert per modality against one feed-forward part for all, at equal active FLOPs (VLMo, section 3.1)
    vlmo-order       pictures, then texts, then pairs; texts first; pairs alone; each with the same samples of pairs (3.3)
    vlmo-attention   masked words of text alone, with attention trained on pictures and frozen, with random attention and
                     frozen, and with all of it trained (3.3: attention carries over)
    blip-sharing     what the encoder and the decoder of text share (BLIP, table 3)

Finished arms are kept, so a table grows over several starts. What an arm needs (a teacher, an image tokeniser) is trained once
for all. The figures of a study stand on the method's docs page, with date and machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from multiway.recipes.world import WORLD
from multiway.workflows.arms import Arm, arm_recipe, cell
from multiway.workflows.compare import COLUMNS
from multiway.workflows.step_times import step_times

_SHARED = ("--method.blocks.experts", "shared", "--method.blocks.fusion-layers", "0")
_CODES = (("--codes", "codes"),)
_TEXTS_FIRST = ("--order", "language", "vision", "pairs", "--frozen", "vision")
_TEXTS = ("--order", "language", "--frozen")

_WHITE = ("--view.mean", "1", "1", "1", "--view.std", "0.5", "0.5", "0.5")

# What some arms need, first.
NEEDED = (
    Arm("teacher", "clip", ("--method.image.stem", "conv", *_WHITE)),
    Arm("codes", "vqkd", needs=(("--teacher", "teacher"),)),
)

STUDIES: dict[str, tuple[Arm, ...]] = {
    "vlmo-experts": (
        Arm("experts", "vlmo"),
        Arm("experts, none for pairs", "vlmo", ("--method.blocks.fusion-layers", "0")),
        Arm("one feed-forward part", "vlmo", _SHARED),
    ),
    "vlmo-order": (
        # Patches of the size that the image tokeniser has codes for, as in the stages.
        Arm("pairs alone", "vlmo", ("--method.patch", "8")),
        Arm("pictures, texts, pairs", "vlmo-stages", needs=_CODES),
        Arm("texts, pictures, pairs", "vlmo-stages", _TEXTS_FIRST, needs=_CODES),
    ),
    "vlmo-attention": (
        Arm("of pictures, frozen", "vlmo-stages", ("--order", "vision", "language"), needs=_CODES),
        Arm("random, frozen", "vlmo-stages", (*_TEXTS, "language")),
        Arm("trained on texts", "vlmo-stages", (*_TEXTS, "pairs")),
    ),
    "blip-sharing": tuple(
        Arm(sharing, "blip", ("--method.sharing", sharing))
        for sharing in ("all-but-self-attention", "all", "all-but-cross-attention", "none")
    ),
}


def study(name: str, out: Path, samples: int, seeds: list[int], threads: int, data: str) -> list[dict[str, Any]]:
    """Train and measure every arm with every seed; a cell each."""
    needed = {need for arm in STUDIES[name] for _, need in arm.needs}
    needed |= {need for arm in NEEDED if arm.name in needed for _, need in arm.needs}
    folders: dict[str, Path] = {}
    found, recipes = [], {}
    for arm in NEEDED:
        if arm.name in needed:
            folders[arm.name] = out / arm.name
            cell(arm, out / arm.name, data, samples, 0, 100, folders, threads)
    for arm in STUDIES[name]:
        for seed in seeds:
            folder = out / name / f"{arm.name.replace(' ', '-').replace(',', '')}-{seed}"
            print(f"{arm.name}, seed {seed}", flush=True)
            done = cell(arm, folder, data, samples, seed, 100, folders, threads)
            found.append({"seed": seed, **done})
            if seed == seeds[0]:
                recipes[arm.name] = arm_recipe(arm, folder, data, samples, seed, folders)[0].stages()[-1][1]
    times = step_times(recipes)
    return [{**each, "ms": times[each["arm"]]} for each in found]


def main() -> None:
    """Run a study and print its table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--samples", type=int, default=38_400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", default=WORLD)
    asked = parser.parse_args()
    cells = study(asked.study, asked.out, asked.samples, asked.seeds, asked.threads, asked.data)
    shown = [column for column in COLUMNS if any(column.show(found) for found in cells)]
    print("| arm | seed | losses at the end | " + " | ".join(column.title for column in shown) + " |")
    print("|---" * (len(shown) + 3) + "|")
    for found in cells:
        losses = ", ".join(f"{name} {value:.3f}" for name, value in found["losses"].items())
        row = " | ".join(column.show(found) for column in shown)
        print(f"| {found['arm']} | {found['seed']} | {losses} | {row} |")


if __name__ == "__main__":
    main()
