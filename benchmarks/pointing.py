"""Which picture of a model to believe: every kind of map on the pointing game, for CLIP, FILIP, ALBEF and ViLT, each trained briefly.

    python benchmarks/pointing.py [--samples 51200] [--expressions 1000] [--methods clip filip albef vilt] [--out runs/pointing]

All are trained on equal samples of scenes and asked about the same expressions of `@test`, whose boxes are known. Runs are kept, so
that a table can be drawn again. It is printed as Markdown, a row for each map, a column for each method, in per cent, with 95 %
intervals (bootstrap over pictures); `random` is a point drawn evenly, `centre` the middle of the picture. The figures stand in
docs/explain.md, with date and machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from arms import train_arm

from multiway.data.annotated.open import open_examples
from multiway.explain.kinds import KINDS
from multiway.hub.load import load
from multiway.recipes.world import WORLD
from multiway.tasks.task import Metric
from multiway.workflows.arms import arm_recipe
from multiway.workflows.compare import ARMS
from multiway.workflows.explain_pointing import verdict
from multiway.workflows.pointing import BASELINES, pointing_game

METHODS = ("clip", "filip", "albef", "vilt")


def measure(method: str, out: Path, data: str, samples: int, expressions: int, seed: int) -> dict[str, Metric]:
    """Train a method, if that is not done yet, and play."""
    folder = out / method
    train_arm(arm_recipe(ARMS[method], folder, data, samples, seed, {})[0], folder)
    examples = open_examples(f"{data}@test", "grounding", "test")
    result = pointing_game(load(folder), examples, samples=expressions, seed=seed)
    (folder / "pointing.json").write_text(json.dumps(result.to_json(), indent=1))
    return {name: metric for name, metric in result.metrics.items() if "[" not in name}


def table(found: Mapping[str, Mapping[str, Metric]]) -> str:
    """Markdown; what is above chance by its interval is bold."""
    lines = ["| map | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for kind in (*BASELINES, *KINDS):
        cells = []
        for metrics in found.values():
            one = metrics.get(kind)
            shown = "" if one is None else f"{100 * one.value:.1f} ({100 * one.low:.1f}–{100 * one.high:.1f})"
            cells.append(f"**{shown}**" if one is not None and verdict(one) == "above chance" else shown)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train, play, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=51_200)
    parser.add_argument("--expressions", type=int, default=1000)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--data", default=WORLD)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/pointing"))
    asked = parser.parse_args()
    found = {}
    for method in asked.methods:
        print(method, file=sys.stderr, flush=True)
        found[method] = measure(method, asked.out, asked.data, asked.samples, asked.expressions, asked.seed)
    print(table(found))


if __name__ == "__main__":
    main()
