"""Training for less, at equal processor time: patches left out, small pictures and short captions first, easy rows first, parts that join.

    python benchmarks/thrift.py flip [--seconds 80] [--seeds 0] [--arms "half left out" ...] [--out runs/thrift] [--threads 1]

    flip         CLIP with no patch, half and three quarters of them left out; with and without a last stretch on whole pictures
    clipa        full size throughout; small pictures first; short captions too, cut at the end, at random, in blocks
    curriculum   rows in any order; short captions first; what a trained model finds easy first, and what it finds hard
    unfreeze     CLIP trained on emoji, tuned to scenes: all at once, layer by layer from the top, projections alone

What a step takes is measured first: processor time of this process, the arms by turns, one thread, so that others on the machine
falsify little. Every arm gets as many steps as fit into the same time. Then each is trained by its command and searched in. A
finished arm is kept, so that a table grows over several starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from multiway.cli import score, train
from multiway.recipes.command import planned
from multiway.workflows.step_times import whole_step

_CLIP = ("clip", "--data", "emoji", "--evaluate", "retrieval=@random", "retrieval=@concept", "--batch", "128")
_TUNE = ("--lr", "1e-4")
_SMALL = ("--view.size", "32", "--method.image.size", "32")
_FULL = ("--init-context", "32", "--method.text.context", "32")
_SHORT = ("--tokenizer.context", "6", "--method.text.context", "6")
_SCENES = (
    "clip", "--data", "scenes:objects=1-3,samples=4000", "--evaluate", "retrieval=@test", "--batch", "128",
    "--view.size", "64", "--lr", "3e-4",
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: of the row in the table.
        options: of the command line.
        stages: (share of the time, options) of each stage; empty for one run.
    """

    name: str
    options: tuple[str, ...]
    stages: tuple[tuple[float, tuple[str, ...]], ...] = ()


def _two(first: tuple[str, ...], last: tuple[str, ...]) -> tuple[tuple[float, tuple[str, ...]], ...]:
    return ((0.8, first), (0.2, (*_TUNE, *last)))


PLAIN = Arm("plain", _CLIP)

STUDIES: dict[str, tuple[Arm, ...]] = {
    "flip": (
        PLAIN,
        Arm("half left out", (*_CLIP, "--drop", "0.5")),
        Arm("half left out, then none", _CLIP, _two(("--drop", "0.5"), ())),
        Arm("three quarters left out", (*_CLIP, "--drop", "0.75")),
        Arm("three quarters left out, then none", _CLIP, _two(("--drop", "0.75"), ())),
    ),
    "clipa": (
        PLAIN,
        Arm("small pictures, then full", _CLIP, _two(_SMALL, ())),
        Arm("short captions as well, cut", _CLIP, _two((*_SMALL, *_SHORT), _FULL)),
        Arm("short captions as well, at random", _CLIP, _two((*_SMALL, *_SHORT, "--shorten", "random"), _FULL)),
        Arm("short captions as well, blocks", _CLIP, _two((*_SMALL, *_SHORT, "--shorten", "block"), _FULL)),
    ),
    "curriculum": (
        PLAIN,
        Arm("short captions first", (*_CLIP, "--curriculum", "length")),
        Arm("easy for a trained model first", (*_CLIP, "--curriculum", "SCORES")),
        Arm("hard for it first", (*_CLIP, "--curriculum", "SCORES", "--pacing.easy", "high")),
    ),
    "unfreeze": (
        Arm("all at once", (*_SCENES, "--init", "BASE")),
        Arm("layer by layer", (*_SCENES, "--init", "BASE", "--optimiser.gradual", "0.5")),
        Arm("projections alone", (*_SCENES, "--init", "BASE", "--optimiser.rules", r"^(image|text)\.", "0")),
    ),
}
"""`BASE` and `SCORES` stand for the run of `PLAIN`, and what it makes of the rows that it was trained on. What half-frozen steps cost
less is not counted: arms of `unfreeze` get equal steps."""


def command(arm: Arm, out: Path, base: Path, steps: list[int], seed: int, threads: int) -> list[str]:
    """The options of `multiway train` for an arm, so many steps each stage."""

    def filled(options: tuple[str, ...]) -> list[str]:
        return [
            str(base) if each == "BASE" else str(base / "scores.jsonl") if each == "SCORES" else each
            for each in options
        ]

    shared = [
        "--out",
        str(out),
        "--seed",
        str(seed),
        "--threads",
        str(threads),
        "--precision",
        "fp32",
        "--device",
        "cpu",
    ]
    args = [*filled(arm.options), *shared]
    if not arm.stages:
        return [*args, "--steps", str(steps[0])]
    for number, ((_, options), count) in enumerate(zip(arm.stages, steps, strict=True)):
        args += ["--stage", "ab"[number], *options, "--steps", str(count)]
    return args


def times(arms: tuple[Arm, ...], base: Path, rounds: int) -> dict[str, list[float]]:
    """Processor seconds of a step, of each stage of each arm: medians over rounds in which all take turns."""
    steps, owners = [], []
    for arm in arms:
        for _, part in planned(command(arm, Path("runs/none"), base, [1] * max(1, len(arm.stages)), 0, 1)):
            steps.append(whole_step(replace(part, init="", init_context=0, out="")))
            owners.append(arm.name)
    taken: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for place, step in enumerate(steps):
            began = time.process_time()
            step()
            taken[place].append(time.process_time() - began)
    found: dict[str, list[float]] = {}
    for owner, each in zip(owners, taken, strict=True):
        found.setdefault(owner, []).append(statistics.median(each[1:]))
    return found


def steps_of(arm: Arm, seconds: float, taken: list[float]) -> list[int]:
    """Steps of each stage that fit into the time."""
    shares = [share for share, _ in arm.stages] or [1.0]
    return [max(1, round(seconds * share / each)) for share, each in zip(shares, taken, strict=True)]


def run_arm(arm: Arm, out: Path, base: Path, steps: list[int], seed: int, threads: int) -> dict[str, float]:
    """Train an arm, if that is not done, and read its last evaluation."""
    args = command(arm, out, base, steps, seed, threads)
    train.run(args)
    final = Path(planned(args)[-1][1].out)
    lines = [json.loads(line) for line in (final / "metrics.jsonl").read_text().splitlines()]
    values = [line["eval"] for line in lines if line.get("eval")][-1]
    return {name: metric["value"] for name, metric in values.items() if name.endswith(("mean/R@1", "retrieval/R@10"))}


def folder_of(arm: Arm, out: Path, seed: int) -> Path:
    """Of an arm's run, whichever study asks for it."""
    return out / f"{arm.name.replace(' ', '-').replace(',', '')}-{seed}"


class Clock:
    """Processor time of each arm's steps, measured once and kept, so that a study that is gone on with has the same steps."""

    def __init__(self, out: Path, rounds: int) -> None:
        self.out, self.rounds, self.file = out, rounds, out / "times.json"
        self.taken: dict[str, list[float]] = json.loads(self.file.read_text()) if self.file.is_file() else {}

    def of(self, arms: tuple[Arm, ...], base: Path) -> dict[str, list[float]]:
        """Seconds of a step of each stage; if any arm is new, all of these are measured, by turns."""
        if any(arm.name not in self.taken for arm in arms):
            self.taken |= times(arms, base, self.rounds)
            self.out.mkdir(parents=True, exist_ok=True)
            self.file.write_text(json.dumps(self.taken))
        return self.taken


def scored_base(out: Path, seconds: float, threads: int, clock: Clock) -> Path:
    """The run of `PLAIN`, and beside it what it makes of its rows."""
    base = folder_of(PLAIN, out, 0)
    run_arm(PLAIN, base, base, steps_of(PLAIN, seconds, clock.of((PLAIN,), base)[PLAIN.name]), 0, threads)
    if not (base / "scores.jsonl").is_file():
        score.run([str(base), "--data", "emoji@train", "--out", str(base / "scores.jsonl"), "--threads", str(threads)])
    return base


def main() -> None:
    """Run a study and print its table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=[*STUDIES])
    parser.add_argument("--seconds", type=float, default=80.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", default=[], help="some of the study's arms, by name")
    parser.add_argument("--out", type=Path, default=Path("runs/thrift"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    clock = Clock(asked.out, asked.rounds)
    base = folder_of(PLAIN, asked.out, 0)
    if asked.study in ("curriculum", "unfreeze"):
        base = scored_base(asked.out, asked.seconds, asked.threads, clock)
    arms = tuple(arm for arm in STUDIES[asked.study] if not asked.arms or arm.name in asked.arms)
    taken = clock.of(arms, base)
    print(f"{asked.seconds:g} s of processor time an arm\n| arm | ms a step | steps | seed | |\n|---|---|---|---|---|")
    for arm in arms:
        # What is frozen costs less as long as it is; steps are made equal there, not time.
        own = arms[0].name if asked.study == "unfreeze" else arm.name
        steps, said = steps_of(arm, asked.seconds, taken[own]), ", ".join(f"{1000 * t:.0f}" for t in taken[arm.name])
        for seed in asked.seeds:
            found = run_arm(arm, folder_of(arm, asked.out, seed), base, steps, seed, asked.threads)
            shown = ", ".join(f"{key} {100 * value:.1f}" for key, value in found.items())
            print(f"| {arm.name} | {said} | {steps} | {seed} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
