"""Self-supervised methods on equal samples, and what becomes of them when a part is taken away.

    python benchmarks/views_study.py methods [--data emoji] [--samples 51200] [--seeds 0] [--out runs/views] [--threads 1]

    methods            every method on several views, beside raw pixels and the network as it begins
    collapse           SimSiam with and without stop-gradient and predictor; BYOL without predictor, without momentum; DINO without
                       centring, without sharpening; with what the doctor says of each
    moco-memory        end to end, bank and queue behind one interface (MoCo, figure 3)
    moco-queue         rows of the queue
    moco-momentum      0, 0.9, 0.99, 0.999 (MoCo, table 1)
    simclr-views       crops, colours, greys, each taken away (SimCLR, figure 5)
    simclr-head        layers of the projector; features before it and after it (SimCLR, section 4.2)
    simclr-temperature 0.05 to 1 (SimCLR, table 5)

A cell is a run, trained by its recipe, whose frozen features classify pictures of a held-out split by their neighbours and by a linear
probe. Finished cells are kept, so that a table grows over several starts.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from multiway.abilities import Encoded
from multiway.data.open import open_source
from multiway.data.view import draw
from multiway.engine.doctor import diagnose
from multiway.engine.run import Run
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.recipes import recipe_function
from multiway.recipes.pictures import PicturesRecipe
from multiway.recipes.training import prepare, run_recipe
from multiway.tasks import TASKS
from multiway.tasks.frozen import teach
from multiway.world import World

Change = Callable[[PicturesRecipe], PicturesRecipe]

DATA = {
    "emoji": ("emoji", "random"),
    "digits": ("digits", "test"),
    "scenes": ("scenes:medium,objects=1,samples=4000,gallery=400", "test"),
}
"""By the name that the command line has here: the data, and the split that is measured."""


@dataclass(frozen=True)
class Arm:
    """A row: a recipe, and what is changed of it."""

    name: str
    recipe: str
    change: Change = lambda recipe: recipe


def method(**fields: Any) -> Change:
    """Other values in the method's config."""
    return lambda recipe: replace(recipe, method=replace(recipe.method, **fields))


def views(**fields: Any) -> Change:
    """Other values in every view."""

    def change(recipe: PicturesRecipe) -> PicturesRecipe:
        kinds = tuple(replace(each, **fields) for each in recipe.views.views)
        return replace(recipe, views=replace(recipe.views, views=kinds))

    return change


def head(layers: int) -> Change:
    """Another depth of the projector; of none the features are what is compared."""
    return lambda recipe: method(projector=replace(recipe.method.projector, layers=layers))(recipe)


_NO_COLOUR = {"jitter": 0.0, "grey": 0.0}

STUDIES: dict[str, tuple[Arm, ...]] = {
    "methods": tuple(
        Arm(name, name)
        for name in ("instdisc", "invaspread", "simclr", "moco", "byol", "simsiam", "swav", "moco-v3", "dino")
    ),
    "collapse": (
        Arm("simsiam", "simsiam"),
        Arm("simsiam, gradient through the target", "simsiam", method(stop_gradient=False)),
        Arm("simsiam, no predictor", "simsiam", method(predict=False)),
        Arm("byol", "byol"),
        Arm("byol, no predictor", "byol", method(predict=False)),
        Arm("byol, twin is the network", "byol", method(momentum=0.0, momentum_end=0.0)),
        Arm("byol, neither", "byol", method(predict=False, momentum=0.0, momentum_end=0.0)),
        Arm("dino", "dino"),
        Arm("dino, no centring", "dino", method(centring=False)),
        Arm("dino, no sharpening", "dino", method(teacher_temperature=0.1, warm_temperature=0.1)),
        Arm("dino, neither", "dino", method(centring=False, teacher_temperature=0.1, warm_temperature=0.1)),
    ),
    "moco-memory": tuple(Arm(memory, "moco", method(memory=memory)) for memory in ("batch", "bank", "queue")),
    "moco-queue": tuple(Arm(f"queue {rows}", "moco", method(queue=rows)) for rows in (0, 256, 1024, 2560, 16384)),
    "moco-momentum": tuple(
        Arm(f"momentum {m:g}", "moco", method(momentum=m, momentum_end=m)) for m in (0.0, 0.9, 0.99, 0.999)
    ),
    "simclr-views": (
        Arm("all", "simclr"),
        Arm("no crop", "simclr", views(scale=(1.0, 1.0))),
        Arm("no colour", "simclr", views(**_NO_COLOUR)),
        Arm("no mirror", "simclr", views(flip=0.0)),
        Arm("crop alone", "simclr", views(**_NO_COLOUR, flip=0.0)),
        Arm("colour alone", "simclr", views(scale=(1.0, 1.0), flip=0.0)),
    ),
    "simclr-head": tuple(Arm(f"{layers} layers", "simclr", head(layers)) for layers in (1, 2, 3)),
    "simclr-temperature": tuple(
        Arm(f"temperature {tau:g}", "simclr", method(temperature=tau)) for tau in (0.05, 0.1, 0.5, 1.0)
    ),
}


class RawPixels:
    """A model that sees pixels: what neighbours are worth without any network."""

    def __init__(self, model: Model) -> None:
        self.view = model.processor.view

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image",)

    def encode_image(self, images: Any, tokens: bool = False) -> Encoded:
        """(B, 3 S S), centred and of length 1."""
        squares = torch.stack([torch.from_numpy(draw(each, self.view, self.view.size).copy()) for each in images])
        rows = squares.flatten(1).float()
        rows = rows - rows.mean(1, keepdim=True)
        return Encoded(torch.nn.functional.normalize(rows, dim=1))


def measured(model: Any, data: str) -> dict[str, Any]:
    """Neighbours and a linear probe on the held-out split."""
    spec = f"{data}@{next(split for name, split in DATA.values() if name == data)}"
    found: dict[str, Any] = {}
    for task, metric in (("knn", "accuracy/top-1[k=20]"), ("probe", "accuracy/top-1")):
        result = teach(TASKS[task], spec, lambda named: open_source(named)).run(model, open_source(spec))
        found[task] = result.to_json()["metrics"][metric]
    return found


def recipe_of(arm: Arm, data: str, samples: int, seed: int, threads: int, out: Path) -> PicturesRecipe:
    """The arm's recipe on these data, for so many samples."""
    recipe = recipe_function(arm.recipe)()
    assert isinstance(recipe, PicturesRecipe)
    steps = max(1, round(samples / recipe.settings.batch))
    settings = replace(recipe.settings, steps=steps, seed=seed, threads=threads)
    return arm.change(replace(recipe, settings=settings, data=data, out=str(out)))


def cell(arm: Arm, recipe: PicturesRecipe) -> dict[str, Any]:
    """Train and measure an arm, or read what was measured before; a run of another recipe in its place is an error."""
    folder = Path(recipe.out)
    kept = folder / "cell.json"
    outcome = run_recipe(recipe, World())  # finds out by itself whether there is anything left to do
    if kept.is_file():
        return json.loads(kept.read_text())  # type: ignore[no-any-return]
    assert outcome.finished
    run = Run.read(folder)
    metrics, timings = run.metrics(), run.timings()
    settings = {"lr": recipe.settings.lr, "steps": recipe.settings.steps}
    steady = sorted(line["step_seconds"] for line in timings[1:])
    found = {
        "arm": arm.name,
        "seed": recipe.settings.seed,
        "losses": {name: term["value"] for name, term in metrics[-1]["terms"].items()},
        "health": metrics[-1]["health"],
        "doctor": [f"{each.severity}: {each.what}" for each in diagnose(metrics, timings, {}, settings)],
        "ms": 1000 * steady[len(steady) // 2] / recipe.settings.batch,
        **measured(load(folder), recipe.data),
    }
    kept.write_text(json.dumps(found, indent=1))
    return found


def baselines(recipe: PicturesRecipe) -> list[dict[str, Any]]:
    """Raw pixels, and the network before its first step."""
    ready = prepare(recipe, World())
    model = ready.model()
    both = (("raw pixels", RawPixels(model)), (f"{recipe.name}, untrained", model))
    return [{"arm": name, "seed": recipe.settings.seed, **measured(each, recipe.data)} for name, each in both]


def shown(found: dict[str, Any]) -> str:
    """A row of the table."""

    def share(name: str) -> str:
        each = found[name]
        return f"{100 * each['value']:.1f} ({100 * each['low']:.1f}–{100 * each['high']:.1f})"

    rank = next((v for k, v in found.get("health", {}).items() if k.endswith("rank")), None)
    cells = [
        found["arm"],
        str(found["seed"]),
        share("knn"),
        share("probe"),
        ", ".join(f"{name} {value:.3f}" for name, value in found.get("losses", {}).items() if name != "probe"),
        "" if rank is None else f"{rank:.1f}",
        f"{found['ms']:.2f}" if "ms" in found else "",
        "; ".join(found.get("doctor", [])),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run a study and print its table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--data", default="emoji", choices=sorted(DATA))
    parser.add_argument("--samples", type=int, default=51_200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/views"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[], help="names of arms, if not all")
    asked = parser.parse_args()
    arms = [arm for arm in STUDIES[asked.study] if not asked.only or arm.name in asked.only]
    print("| arm | seed | kNN % | linear % | losses | effective rank | ms/picture | doctor |")
    print("|---" * 8 + "|")
    for place, arm in enumerate(arms):
        for seed in asked.seeds:
            name = re.sub(r"[^a-z0-9.]+", "-", arm.name)
            out = asked.out / asked.data / asked.study / f"{name}-{seed}"
            recipe = recipe_of(arm, DATA[asked.data][0], asked.samples, seed, asked.threads, out)
            if place == 0 and seed == asked.seeds[0]:
                for each in baselines(recipe):
                    print(shown(each), flush=True)
            print(shown(cell(arm, recipe)), flush=True)


if __name__ == "__main__":
    main()
