"""What gets image-text matching off its prior? Arms of ALBEF at `tiny` on scenes, 300 steps of 64 pairs each.

    python benchmarks/itm_prior.py [--out runs/itm] [--arms paper annealed ...] [--threads 1] [--steps 300]

Every arm is measured on the same held-out scenes with hard negatives, whatever it was trained with: `off` is the first
evaluated step at which the matching loss is 5 % below the prior 0.6365, `loss` that loss at the end, `R@1` the encoders'
recall among 1,000 (mean of both directions) and `gain` what re-ranking 16 adds to it.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from arms import last_evaluation, train_arm

from multiway.data.open import open_source
from multiway.hub.file import write_model
from multiway.hub.load import load
from multiway.recipes.albef import AlbefRecipe, albef
from multiway.recipes.training import prepare
from multiway.recipes.world import WORLD
from multiway.tasks import TASKS
from multiway.world import World

# name -> what it is, and what it changes: of the method, of the optimiser, of the masking, of the recipe.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper": ("hard negatives from the start", {"method": {"hard_until": 0.0}}),
    "random": ("random negatives throughout", {"method": {"hardness": 0.0}}),
    "annealed": ("the recipe: random to hard over the first half", {}),
    "align-paper": ("ITC alone for 20 %, then hard", {"method": {"align": 0.2, "hard_until": 0.0}}),
    "align-annealed": (
        "ITC alone for 20 %, then random to hard until 60 %",
        {"method": {"align": 0.2, "hard_from": 0.2, "hard_until": 0.6}},
    ),
    "fast-fusion": (
        "hard from the start, fused half at 3 x the learning rate",
        {
            "method": {"hard_until": 0.0},
            "optimiser": {"rules": (("temperature", 0.1), (r"student\.fusion|match_head", 3.0))},
        },
    ),
    "cross-zero": (
        "hard; cross-attention starts with zero output",
        {"method": {"hard_until": 0.0}, "weights": (r"student\.fusion\..*cross\.out\.weight", 0.0)},
    ),
    "old-queue": (
        "annealed; 4,096 rows of queue among the candidates from the first step",
        {"method": {"queue": 4096, "queue_from": 0.0}},
    ),
    "fast-temperature": ("annealed; the temperature learns as fast as the rest", {"optimiser": {"rules": ()}}),
    "patches": ("annealed; patches cut and projected, no convolutions", {"image": {"stem": "patch"}}),
    "few-masks": ("annealed, 15 % of words masked instead of 30 %", {"masking": {"ratio": 0.15}}),
    "objects": (
        "hard; the first 20 % on scenes of one object",
        {"method": {"hard_until": 0.0}, "first": "objects=1-1"},
    ),
    "large-batch": ("annealed, half the steps of twice the batch", {"settings": {"batch": 128, "steps": 250}}),
}
PRIOR = 0.6365


def recipe_of(arm: str, steps: int, threads: int, seed: int) -> AlbefRecipe:
    """The tiny recipe with the arm's changes."""
    changes = ARMS[arm][1]
    recipe = albef()
    settings = {"steps": steps, "threads": threads, "seed": seed, "log_every": 10, **changes.get("settings", {})}
    if "settings" in changes:
        settings["steps"] = steps * recipe.settings.batch // settings["batch"]
    settings |= {"evaluate_every": max(1, settings["steps"] // 10), "checkpoint_every": settings["steps"]}
    optimiser = replace(recipe.settings.optimiser, **changes.get("optimiser", {}))
    return replace(
        recipe,
        settings=replace(recipe.settings, optimiser=optimiser, **settings),
        method=replace(
            recipe.method, image=replace(recipe.method.image, **changes.get("image", {})), **changes.get("method", {})
        ),
        masking=replace(recipe.masking, **changes.get("masking", {})),
        evaluate=(f"matching={WORLD},gallery=384@val",),
    )


def run_arm(arm: str, out: Path, steps: int, threads: int, seed: int) -> list[dict[str, Any]]:
    """Train one arm; `objects` in two runs, the second from the first's weights."""
    recipe = recipe_of(arm, steps, threads, seed)
    first, scaled = ARMS[arm][1].get("first"), ARMS[arm][1].get("weights")
    if scaled is not None:
        recipe = replace(recipe, init=str(_scaled_start(recipe, out / f"{arm}-{seed}.safetensors", *scaled)))
    if first is None:
        return train_arm(recipe, out / f"{arm}-{seed}")
    # One tokeniser for both: captions of single things know no relations.
    tokenizer = out / "tokenizer.json"
    if not tokenizer.exists():
        out.mkdir(parents=True, exist_ok=True)
        tokenizer.write_text(prepare(recipe, World()).processor.tokenizer.to_json())
    recipe = replace(recipe, tokenizer=replace(recipe.tokenizer, path=str(tokenizer)))
    early = replace(
        recipe,
        data=f"scenes:easy,{first}",
        settings=replace(recipe.settings, steps=steps // 5, horizon=steps, checkpoint_every=steps // 5),
        evaluate=(),
    )
    train_arm(early, out / f"{arm}-first-{seed}")
    late = replace(recipe.settings, steps=steps - steps // 5)
    return train_arm(replace(recipe, settings=late, init=str(out / f"{arm}-first-{seed}")), out / f"{arm}-{seed}")


def _scaled_start(recipe: AlbefRecipe, file: Path, pattern: str, factor: float) -> Path:
    """The recipe's own random start with some weights multiplied, as a file to start from."""
    if not file.exists():
        ready = prepare(recipe, World())
        names = [name for name, _ in ready.method.named_parameters() if re.search(pattern, name)]
        if not names:
            raise ValueError(f"no parameter is called like {pattern!r}")
        for name in names:
            ready.method.get_parameter(name).data.mul_(factor)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_model(file, ready.method, ready.processor)
    return file


def rerank(folder: Path) -> dict[str, float]:
    """Re-ranking among 1,000 held-out scenes, measured once and kept beside the run."""
    kept = folder / "rerank.json"
    if not kept.exists():
        result = TASKS["rerank"].run(load(folder), open_source(f"{WORLD}@val"))
        kept.write_text(json.dumps({name: metric.value for name, metric in result.metrics.items()}))
    return json.loads(kept.read_text())  # type: ignore[no-any-return]


def summary(lines: list[dict[str, Any]]) -> tuple[float | None, dict[str, float]]:
    """First evaluated step off the prior, and the last evaluation."""
    off = None
    for line in lines:
        for name, metric in line.get("eval", {}).items():
            if name.endswith("hard/loss") and metric["value"] < 0.95 * PRIOR and off is None:
                off = line["step"]
    return off, last_evaluation(lines)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/itm"))
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(f"{'arm':16s} {'off':>5s} {'loss':>6s} {'acc':>6s} {'R@1':>6s} {'gain':>6s}   what it is")
    for arm in asked.arms:
        off, last = summary(run_arm(arm, asked.out, asked.steps, asked.threads, asked.seed))
        if not last:
            continue
        found = rerank(asked.out / f"{arm}-{asked.seed}")
        print(
            f"{arm:16s} {off or '-':>5} {last['hard/loss']:6.3f} {last['hard/accuracy']:6.1%} {found['dual/mean/R@1']:6.1%} "
            f"{found['mean/R@1_gain']:+6.1%}   {ARMS[arm][0]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
