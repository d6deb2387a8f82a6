"""Which map of a model to believe: every kind on the pointing game, for CLIP, FILIP, ALBEF, ViLT, VLMo and BEiT-3, each trained briefly.

    python benchmarks/pointing.py [--samples 51200] [--expressions 1000] [--methods clip filip albef vilt vlmo beit3] [--out runs/pointing]

All are trained on equal samples of scenes (BEiT-3 besides learns from codes, whose tokeniser learns from CLIP, each from as many) and
asked about the same expressions of `@test`, whose boxes are known. Runs are kept, so that a table can be drawn again. It is printed as
Markdown, a row for each map, a column for each method, in per cent, with 95 % intervals (bootstrap over pictures); `random` is a point
drawn evenly, `centre` the middle of the picture. Rows `... against others` are of the similarity less its mean to `--against` other
expressions. A second table has each map's habits: how often it points at anything that could be meant, and how often at one and the
same place. The figures stand in docs/explain.md, with date and machine; benchmarks/pointing_why.py looks for reasons.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from arms import train_arm

from multiway.data.annotated.open import open_examples
from multiway.data.examples import Examples, Pointed
from multiway.explain.kinds import KINDS
from multiway.explain.pairs import Look
from multiway.hub.load import load
from multiway.recipes.world import WORLD
from multiway.tasks.task import Metric
from multiway.workflows.arms import arm_recipe
from multiway.workflows.compare import ARMS
from multiway.workflows.explain_pointing import verdict
from multiway.workflows.fusion import spread
from multiway.workflows.pointing import BASELINES, Habit, pointing_game

METHODS = ("clip", "filip", "albef", "vilt", "vlmo", "beit3")
CONTRASTED = ("itc-cam", "occlusion")  # maps of a score, which can be held against other texts


@dataclass(frozen=True)
class Played:
    """What was found of one method: metrics and habits by map, the contrasted ones as `occlusion against others`."""

    metrics: dict[str, Metric]
    habits: dict[str, Habit]


def train(method: str, out: Path, data: str, samples: int, seed: int) -> Path:
    """Train a method and what it needs, if that is not done yet; its run."""
    folder, arm = out / method, ARMS[method]
    others = {need: train(need, out, data, samples, seed) for _, need in arm.needs}
    train_arm(arm_recipe(arm, folder, data, samples, seed, others)[0], folder)
    return folder


def other_texts(examples: Examples[Pointed], count: int) -> tuple[str, ...]:
    """Expressions evenly spread over the split, as often as they come: what is subtracted is what expressions share."""
    return tuple(examples.example(number).text for number in spread(list(range(len(examples))), count))


def measure(method: str, asked: argparse.Namespace) -> Played:
    """Train and play."""
    folder = train(method, asked.out, asked.data, asked.samples, asked.seed)
    examples = open_examples(f"{asked.data}@test", "grounding", "test")
    model = load(folder)
    result = pointing_game(model, examples, samples=asked.expressions, seed=asked.seed)
    (folder / "pointing.json").write_text(json.dumps(result.to_json(), indent=1))
    found = Played({name: each for name, each in result.metrics.items() if "[" not in name}, result.details.habits)
    if "compare" in model.abilities():
        look = Look(score="similarity", against=other_texts(examples, asked.against))
        kinds = [kind for kind in CONTRASTED if kind in result.details.hits]
        again = pointing_game(model, examples, kinds, asked.expressions, look, seed=asked.seed)
        for kind in kinds:
            found.metrics[f"{kind} against others"] = replace(again.metrics[kind], name=f"{kind} against others")
            found.habits[f"{kind} against others"] = again.details.habits[kind]
    return found


def rows_of(found: Mapping[str, Played]) -> list[str]:
    """Names of the rows, in order."""
    there = {name for one in found.values() for name in one.metrics}
    return [name for name in (*BASELINES, *KINDS, *(f"{kind} against others" for kind in CONTRASTED)) if name in there]


def table(found: Mapping[str, Played]) -> str:
    """Markdown; what is above chance by its interval is bold."""
    lines = ["| map | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for kind in rows_of(found):
        cells = []
        for played in found.values():
            one = played.metrics.get(kind)
            shown = "" if one is None else f"{100 * one.value:.1f} ({100 * one.low:.1f}–{100 * one.high:.1f})"
            cells.append(f"**{shown}**" if one is not None and verdict(one) == "above chance" else shown)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def habits_table(found: Mapping[str, Played]) -> str:
    """Markdown: per cent of hottest points on any thing / at the place that is the hottest most often."""
    lines = ["| map | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for kind in rows_of(found):
        own = [played.habits.get(kind) for played in found.values()]
        if any(own):
            cells = ["" if one is None else f"{100 * one.things:.1f} / {100 * one.often:.1f}" for one in own]
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train, play, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=51_200)
    parser.add_argument("--expressions", type=int, default=1000)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--against", type=int, default=64, help="other expressions")
    parser.add_argument("--data", default=WORLD)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/pointing"))
    asked = parser.parse_args()
    found = {}
    for method in asked.methods:
        print(method, file=sys.stderr, flush=True)
        found[method] = measure(method, asked)
    print(table(found), habits_table(found), sep="\n\n")


if __name__ == "__main__":
    main()
