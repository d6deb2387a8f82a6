"""Self-supervised methods on equal samples, and what becomes of them when a part is taken away.

    python benchmarks/views_study.py methods [--data scenes] [--samples 25600] [--tuned 6400] [--seeds 0] [--out runs/views]

    methods            every method on pictures alone, beside raw pixels and networks as they begin
    begins             neighbours by each method's network before it is trained
    times              milliseconds a picture of a training step of each method, by turns in one process
    bridges            CLIP, SLIP and DeCLIP on the same data with their captions
    collapse           SimSiam with and without stop-gradient and predictor; BYOL without predictor, without momentum; DINO without
                       centring, without sharpening; with what the doctor says of each
    moco-memory        end to end, bank and queue behind one interface (MoCo, figure 3)
    moco-queue         rows of the queue
    moco-momentum      0, 0.9, 0.99, 0.999 (MoCo, table 1)
    moco-norms         batch norm in groups, keys shuffled between them or not (MoCo, section 3.3, figure 4 of the appendix)
    simclr-views       crops, colours, greys, each taken away (SimCLR, figure 5)
    simclr-head        layers of the projector; features before it and after it (SimCLR, section 4.2)
    simclr-temperature 0.05 to 1 (SimCLR, table 5)
    mae-ratio          share of patches hidden, for neighbours, the linear probe and fine-tuning (MAE, figure 5)
    mae-tokens         mask tokens in the encoder or not: accuracy and speed (MAE, table 1c)
    mae-decoder        blocks of the decoder (MAE, table 1a)
    vit-positions      kinds of position embeddings, trained with labels from the start (ViT, appendix D.4)

A cell is a run, trained by its recipe in a process of its own, whose frozen features classify pictures of a held-out split by their
neighbours and by a linear probe; `--tuned` fine-tunes it on so many labelled examples as well. Finished cells are kept, so that a
table grows over several starts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from views_arms import DATA, KINDS, NEEDED, STUDIES, TUNED, UNTRAINED

from multiway.abilities import Encoded
from multiway.config import identity_json, to_json
from multiway.data.open import open_source
from multiway.data.view import draw
from multiway.engine.doctor import diagnose
from multiway.engine.run import Run
from multiway.hub.load import load
from multiway.recipes.command import parse
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import prepare
from multiway.tasks import TASKS
from multiway.tasks.frozen import teach
from multiway.tasks.knn import Knn
from multiway.version import __version__
from multiway.workflows.arms import Arm, kept_cell, run_command, write_cell
from multiway.workflows.step_times import step_times
from multiway.world import World

_METRICS = {"knn": "accuracy/top-1[k=20]", "probe": "accuracy/top-1", "classification": "accuracy/top-1"}
_TUNED_BATCH = 64


class RawPixels:
    """A model that sees pixels: what neighbours are worth without any network."""

    def __init__(self, view: Any) -> None:
        self.view = view

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image",)

    def encode_image(self, images: Any, tokens: bool = False) -> Encoded:
        """(B, 3 S S), centred and of length 1."""
        squares = torch.stack([torch.from_numpy(draw(each, self.view, self.view.size).copy()) for each in images])
        rows = squares.flatten(1).float()
        rows = rows - rows.mean(1, keepdim=True)
        return Encoded(F.normalize(rows, dim=1))


class Projected:
    """A trained model whose pictures are what its projector makes of them, which is what it was trained on and is thrown away."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = model.device

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image",)

    @torch.no_grad()
    def encode_image(self, images: Any, tokens: bool = False) -> Encoded:
        """(B, D) on the unit sphere."""
        method = self.model.method
        features = method.backbone(self.model.processor.images(images)).pooled
        return Encoded(F.normalize(method.projector(features).float(), dim=-1))


def measured(model: Any, data: str, tasks: tuple[str, ...] = ("knn", "probe")) -> dict[str, Any]:
    """Top-1 on the held-out split, by task."""
    spec = f"{data}@{dict(DATA.values())[data]}"
    found: dict[str, Any] = {}
    for task in tasks:
        result = teach(TASKS[task], spec, lambda named: open_source(named)).run(model, open_source(spec))
        found[task] = result.to_json()["metrics"][_METRICS[task]]
    if data in KINDS and "knn" in tasks:
        found["kinds"] = kinds(model, KINDS[data])
    return found


def kinds(model: Any, spec: str) -> dict[str, Any]:
    """Top-1 by five neighbours."""
    near = teach(Knn(ks=(5,)), spec, lambda named: open_source(named))
    metric: dict[str, Any] = near.run(model, open_source(spec)).to_json()["metrics"]["accuracy/top-1[k=5]"]
    return metric


def key_of(*parts: Any) -> str:
    """A name for what went into a cell."""
    return hashlib.blake2b(json.dumps([*parts, __version__], sort_keys=True).encode(), digest_size=8).hexdigest()


def lent(arm: Arm, folder: Path, data: str, samples: int, seed: int, threads: int) -> list[str]:
    """The options that name the runs which an arm needs; they are trained first, and kept in `folder`."""
    words: list[str] = []
    for option, name in arm.needs:
        one, own = next(each for each in NEEDED if each.name == name), folder / f"{slug(name)}-{seed}"
        args = [one.recipe, "--data", data, "--seed", str(seed), "--out", str(own), *one.options]
        args += lent(one, folder, data, samples, seed, threads)
        args += ["--steps", str(max(1, round(samples / parse(args).settings.batch)))]
        key = key_of(to_json(one), parse(args).identity(), samples)
        if kept_cell(own, key) is None:
            run_command("train", *args, "--threads", str(threads))
            write_cell(own, {"key": key})
        words += [option, str(own)]
    return words


def slug(name: str) -> str:
    """An arm's name as that of a folder."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())


def cell(
    arm: Arm, folder: Path, data: str, samples: int, tuned: int, seed: int, threads: int, rate: float = 0.0
) -> dict[str, Any]:
    """Train and measure an arm, or read what was measured before.

    Raises:
        CellFailed: if the training command fails.
    """
    args = [arm.recipe, "--data", data, "--seed", str(seed), "--out", str(folder), *arm.options]
    args += lent(arm, folder.parent.parent / "needed", data, samples, seed, threads)
    batch = parse(args).settings.batch
    steps = 1 if arm in UNTRAINED or "--lr" in arm.options else max(1, round(samples / batch))
    args += ["--steps", str(steps)]
    recipe = parse(args)
    key = key_of(to_json(arm), recipe.identity(), samples, tuned, *([rate] if rate else []))
    if (before := kept_cell(folder, key)) is not None:
        if data in KINDS and "kinds" not in before:
            before["kinds"] = kinds(load(folder), KINDS[data])
            write_cell(folder, before)
        return before | ({"doctor": verdict(folder, recipe)} if "doctor" in before else {})
    peak = run_command("train", *args, "--threads", str(threads))
    run = Run.read(folder)
    metrics, timings = run.metrics(), run.timings()
    steady = sorted(line["step_seconds"] for line in timings[1:])
    found: dict[str, Any] = {"key": key, "arm": arm.name, "seed": seed, "samples": steps * batch, "peak_mib": peak}
    if steady:  # of a network that has been trained
        found |= {
            "losses": {name: term["value"] for name, term in metrics[-1]["terms"].items()},
            "health": metrics[-1]["health"],
            "doctor": verdict(folder, recipe),
            "ms": 1000 * steady[len(steady) // 2] / batch,
        }
    model = load(folder)
    found |= measured(model, data)
    if arm.recipe == "simclr" and steady:
        found["projected"] = measured(Projected(model), data, ("knn",))["knn"]
    if tuned:
        head = folder / "tuned"
        held_out = f"classification={data}@{dict(DATA.values())[data]}"
        asked = (
            "--steps",
            str(tuned // _TUNED_BATCH),
            "--batch",
            str(_TUNED_BATCH),
            "--seed",
            str(seed),
            "--evaluate",
            held_out,
            *(("--lr", str(rate)) if rate else ()),
        )
        run_command(
            "finetune", str(folder), "--task", "classification", "--data", data, *asked, "--out", str(head), "--threads", str(threads)
        )  # fmt: skip
        found["tuned"] = measured(load(head), data, ("classification",))["classification"]
    write_cell(folder, found)
    return found


def verdict(folder: Path, recipe: Recipe) -> list[str]:
    """What the doctor says of a run, by its records."""
    run, settings = Run.read(folder), {"lr": recipe.settings.lr, "steps": recipe.settings.steps}
    return [f"{each.severity}: {each.what}" for each in diagnose(run.metrics(), run.timings(), {}, settings)]


def raw_pixels(folder: Path, data: str) -> dict[str, Any]:
    """What neighbours and a linear probe make of pixels, at the size that `simclr` sees."""
    view = parse(["simclr", "--data", data]).view
    key = key_of("raw pixels", identity_json(view), data)
    before = kept_cell(folder, key)
    if before is not None:
        if data in KINDS and "kinds" not in before:
            before["kinds"] = kinds(RawPixels(view), KINDS[data])
            write_cell(folder, before)
        return before
    folder.mkdir(parents=True)
    found = {"key": key, "arm": "raw pixels", "seed": 0, **measured(RawPixels(view), data)}
    write_cell(folder, found)
    return found


def shown(found: dict[str, Any]) -> str:
    """A row of the table."""

    def share(name: str) -> str:
        each = found.get(name)
        return f"{100 * each['value']:.1f} ({100 * each['low']:.1f}–{100 * each['high']:.1f})" if each else ""

    health = found.get("health", {})
    rank = next((value for name, value in health.items() if name.endswith("rank")), None)
    cells = [
        found["arm"],
        str(found["seed"]),
        share("knn"),
        share("kinds"),
        share("probe"),
        share("tuned"),
        share("projected"),
        ", ".join(f"{name} {value:.3f}" for name, value in found.get("losses", {}).items() if name != "probe"),
        "" if rank is None else f"{rank:.1f}",
        f"{found['ms']:.2f}" if "ms" in found else "",
        f"{found['peak_mib']:.0f}" if found.get("peak_mib") else "",
        "; ".join(found.get("doctor", [])),
    ]
    return "| " + " | ".join(cells) + " |"


def times(threads: int, rounds: int = 5) -> None:
    """Print what a step of each method takes on emoji: cells are trained beside others, and what they took says little."""
    torch.set_num_threads(threads)
    recipes = {arm.name: parse([arm.recipe, "--data", "emoji", *arm.options]) for arm in STUDIES["methods"]}
    print("| | ms/picture |\n|---|---|")
    for name, milliseconds in step_times(recipes, rounds).items():
        print(f"| {name} | {milliseconds:.2f} |")


def begins(data: str) -> None:
    """Print what neighbours make of each method's network as it begins, which not all begin alike."""
    spec = f"{data}@{dict(DATA.values())[data]}"
    print("| | kNN % |\n|---|---|")
    for arm in STUDIES["methods"]:
        if not arm.needs:
            model = prepare(parse([arm.recipe, "--data", data, "--seed", "0", *arm.options]), World()).model()
            near = teach(Knn(), spec, lambda named: open_source(named)).run(model, open_source(spec))
            print(f"| {arm.name} | {100 * near.metrics[_METRICS['knn']].value:.1f} |", flush=True)


def main() -> None:
    """Run a study and print its table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=sorted([*STUDIES, "begins", "times"]))
    parser.add_argument("--data", default="scenes", choices=sorted(DATA))
    parser.add_argument("--samples", type=int, default=25_600)
    parser.add_argument("--tuned", type=int, default=6_400, help="labelled examples, in studies that fine-tune")
    parser.add_argument("--tuned-lr", type=float, default=0.0, help="rate of fine-tuning, if not its own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/views"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[], help="names of arms, if not all")
    asked = parser.parse_args()
    if asked.study == "times":
        times(asked.threads)
        return
    if asked.study == "begins":
        begins(DATA[asked.data][0])
        return
    data, tuned = DATA[asked.data][0], asked.tuned if asked.study in TUNED else 0
    arms = [*UNTRAINED, *STUDIES[asked.study]] if asked.study == "methods" else list(STUDIES[asked.study])
    print(
        "| | seed | kNN % | kNN of kinds % | linear % | tuned % | kNN after the projector % | losses | rank | ms/picture | MiB | doctor |"
    )
    print("|---" * 12 + "|")
    print(shown(raw_pixels(asked.out / asked.data / "raw-pixels", data)), flush=True)
    for arm in arms:
        if asked.only and arm.name not in asked.only:
            continue
        for seed in asked.seeds:
            folder = asked.out / asked.data / asked.study / f"{slug(arm.name)}-{seed}"
            print(shown(cell(arm, folder, data, asked.samples, tuned, seed, asked.threads, asked.tuned_lr)), flush=True)


if __name__ == "__main__":
    main()
