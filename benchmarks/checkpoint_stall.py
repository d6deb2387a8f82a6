"""What saving costs a training loop: while it is waited for, and beside training.

    python benchmarks/checkpoint_stall.py [--width 512] [--layers 8] [--every 20] [--rounds 3] [--folder .] [--json]

A CLIP (55 M parameters by default, two towers of `--layers` blocks) takes real training steps in fp32. In each round there are three
stretches of `--every` steps, in turns: one without a save, one that begins with a save that is waited for, one that begins with a
save beside training. Of each is measured how long the call to save keeps the loop, how long the steps take, and how long the save is
under way altogether. A stretch lasts until its save is done, if that takes longer than its steps.

Beside training there are two prices: the call itself (the copy), and steps that are slower while a thread writes, because it takes
cores and memory from them: how many there are, and how they compare with the later ones of the same stretch. They are told apart. On a
machine with few cores the second is the larger; where a GPU computes, a checkpoint is written by cores that have little else to do.
`all lost` compares a stretch with the quiet one of its round, and has the noise of both.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch

from multiway.batch import Batch
from multiway.engine.optim import OptimiserSpec, build_optimiser, set_rates
from multiway.engine.run import Run
from multiway.engine.state import tensors_of
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.method import Step
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

SIZE, PATCH, LENGTH, VOCABULARY = 64, 16, 16, 8192
KINDS = {"none": "no save", "waited": "waited for", "beside": "beside training"}


@dataclass
class Stretch:
    """Seconds of one stretch: of the call to save, of each step, and from the call until the checkpoint is there."""

    call: float = 0.0
    steps: list[float] = field(default_factory=list)
    under_way: float = 0.0
    during: int = 0  # steps that a save was under way in

    @property
    def loop(self) -> float:
        """What the loop took for its steps, saving included."""
        return self.call + sum(self.steps)


class Training:
    """A CLIP that learns from one made-up batch."""

    def __init__(self, width: int, layers: int, rows: int) -> None:
        torch.manual_seed(0)
        image = VisionConfig(size=SIZE, patch=PATCH, width=width, layers=layers, heads=width // 64, pre_norm=True)
        text = TextConfig(
            vocabulary=VOCABULARY,
            context=LENGTH,
            width=width,
            layers=layers,
            heads=width // 64,
            causal=True,
            pool="eos",
        )
        self.method = Clip(ClipConfig(image=image, text=text, embedding=width)).train()
        self.spec = OptimiserSpec()
        self.optimiser = build_optimiser(self.method, self.spec, self.method.learning_rates())
        ids = torch.randint(4, VOCABULARY, (rows, LENGTH))
        ids[:, -1] = 3
        self.batch = Batch(
            images=torch.randn(rows, 3, SIZE, SIZE), text=ids, text_mask=torch.ones_like(ids, dtype=torch.bool)
        )
        self.steps = 0

    def step(self) -> float:
        """One step; its seconds."""
        began = time.perf_counter()
        set_rates(self.optimiser.param_groups, self.steps, 1_000_000, 1e-4, self.spec)
        self.optimiser.zero_grad(set_to_none=True)
        self.method(self.batch, World(), Step(self.steps)).total.backward()
        torch.nn.utils.clip_grad_norm_(self.method.parameters(), 1.0, foreach=True)
        self.optimiser.step()
        self.steps += 1
        return time.perf_counter() - began

    def stretch(self, run: Run, kind: str, every: int) -> Stretch:
        """`every` steps, with a save before the first of them."""
        found = Stretch()
        began = time.perf_counter()
        tensors = tensors_of(self.method, self.optimiser)
        if kind == "waited":
            run.save(self.steps, tensors, {})
        elif kind == "beside":
            run.save_later(self.steps, tensors, {})
        found.call = time.perf_counter() - began if kind != "none" else 0.0
        found.under_way = found.call
        writing = kind == "beside"
        for _ in range(every):
            found.steps.append(self.step())
            if writing:
                found.during += 1
                writing = self.steps - found.during not in run.steps
                found.under_way = time.perf_counter() - began
        waited = time.perf_counter()
        run.settle()
        if writing:
            found.under_way = time.perf_counter() - began
            found.call += time.perf_counter() - waited  # the next save would have waited for it
        return found


def measure(training: Training, run: Run, every: int, rounds: int) -> dict[str, list[Stretch]]:
    """All stretches of each kind; what is made once (buffers, moments) is made before."""
    for _ in range(2):
        training.step()
    for kind in ("beside", "waited"):
        training.stretch(run, kind, 1)
    found: dict[str, list[Stretch]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, stretches in found.items():
            stretches.append(training.stretch(run, kind, every))
    return found


def summary(found: dict[str, list[Stretch]], every: int) -> dict[str, dict[str, float]]:
    """Medians over rounds; shares of the loop's time are against the quiet stretch of the same round."""
    figures = {}
    for kind, stretches in found.items():
        pairs = list(zip(stretches, found["none"], strict=True))
        figures[kind] = {
            "step_seconds": median(step for each in stretches for step in each.steps),
            "call_seconds": median(each.call for each in stretches),
            "under_way_seconds": median(each.under_way for each in stretches),
            "steps_meanwhile": median(each.during for each in stretches),
            "meanwhile_ratio": median(
                median(each.steps[: each.during]) / median(each.steps[each.during :])
                if 0 < each.during < len(each.steps)
                else 1.0
                for each in stretches
            ),
            "call_share": median(each.call / each.loop for each in stretches),
            "lost_share": median((each.loop - quiet.loop) / each.loop for each, quiet in pairs),
        }
    quiet = figures["none"]["step_seconds"]
    for values in figures.values():
        for steps in (every, 100, 1000):
            values[f"call_share_every_{steps}"] = values["call_seconds"] / (values["call_seconds"] + steps * quiet)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("width", 512), ("layers", 8), ("rows", 8), ("every", 20), ("rounds", 3), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that checkpoints are to lie on")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    training = Training(asked.width, asked.layers, asked.rows)
    with (
        tempfile.TemporaryDirectory(dir=asked.folder) as folder,
        Run.open(Path(folder) / "run", {"benchmark": "checkpoint_stall"}, tensorboard=False) as run,
    ):
        figures = summary(measure(training, run, asked.every, asked.rounds), asked.every)
        copied = run.copied_bytes
    parameters = sum(each.numel() for each in training.method.parameters())
    if asked.json:
        print(json.dumps({"parameters": parameters, "bytes": copied, "every": asked.every, "figures": figures}))
        return
    print(
        f"{parameters / 1e6:.1f} M parameters, checkpoints of {copied / 1e6:,.0f} MB, one every {asked.every} steps, ",
        end="",
    )
    print(f"{torch.get_num_threads()} threads, medians of {asked.rounds} rounds")
    print(
        f"{'':16s} {'step':>9s} {'call':>9s} {'of loop':>8s} {'under way':>10s} {'steps meanwhile':>16s} {'all lost':>9s}"
    )
    for kind, values in figures.items():
        print(
            f"{KINDS[kind]:16s} {values['step_seconds']:7.3f} s {values['call_seconds']:7.3f} s {values['call_share']:8.2%} "
            f"{values['under_way_seconds']:8.2f} s {values['steps_meanwhile']:6.0f}, x{values['meanwhile_ratio']:7.2f} "
            f"{values['lost_share']:9.1%}"
        )
    for steps in (100, 1000):
        shares = ", ".join(
            f"{KINDS[kind]} {figures[kind][f'call_share_every_{steps}']:.3%}" for kind in ("waited", "beside")
        )
        print(f"the calls' share at --checkpoint-every {steps}, from these figures: {shares}")


if __name__ == "__main__":
    main()
