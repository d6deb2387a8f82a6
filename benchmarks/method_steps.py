"""A training step of every recipe, ours alone: rows a second, products, and the share of the machine's matrix rate (MFU).

    python benchmarks/method_steps.py                         all recipes at `tiny`
    python benchmarks/method_steps.py --recipe albef mae --rows 64 --rounds 9 --profile

A step is what the training loop does once the batch is there: forward under bf16 autocast (fp32 where the machine has no bf16),
backward, clipping, the recipe's optimiser, the method's `after_step`. It is taken past every ramp and wait (60 % of training), where
each loss is on. Products are counted by torch's flop counter over such a step, so that MFU says how close the step is to nothing but
matrix products; what a method computes in vain counts for it here, and against it beside a peer (`peer_steps.py`).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from contest import Contender, Precision, operators, products, race

from multiway.batch import Batch
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.device import choose_precision
from multiway.engine.optim import build_optimiser
from multiway.hub.file import write_model
from multiway.methods.method import Method, Step
from multiway.recipes import RECIPES, recipe_function
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import prepare
from multiway.world import World

__all__ = ["LATE", "NAMES", "MethodStep", "Shelf", "method_step", "shelf"]

LATE = Step(index=600, epoch=0, progress=0.6)
ROWS = 64
# Recipes that begin from another run, and the field that names it.
LENT = {"vqkd": "teacher", "beit": "codes", "beit3": "codes"}
NAMES = [name for name in RECIPES if name != "vlmo-stages"]  # a chain of runs, whose steps are those of `vlmo`


@dataclass
class MethodStep:
    """A recipe's step, ready to be taken.

    Attributes:
        method, batch: what it is a step of.
        contender: the step.
        flops: of its products, multiply-adds x 2.
    """

    method: Method
    batch: Batch
    contender: Contender
    flops: int


class Shelf:
    """Recipes at `tiny`, with what they would otherwise be given or learn first: untrained stand-ins for the runs that they begin from,
    and tokenisers, learnt once for all that read the same data.

    Args:
        folder: where these are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenisers: dict[tuple[str, TokenizerSpec], Path] = {}

    def recipe(self, name: str, rows: int = ROWS) -> Recipe:
        """A recipe with batches of so many rows at most."""
        recipe = recipe_function(name)()
        recipe = replace(recipe, settings=replace(recipe.settings, batch=min(rows, recipe.settings.batch)))
        if name in LENT:
            recipe = replace(recipe, **{LENT[name]: str(self.lender(LENT[name]))})
        return self._reading(recipe)

    def lender(self, what: str) -> Path:
        """A model file: `teacher`, a CLIP, or `codes`, the image tokeniser learnt from it."""
        path = self.folder / f"{what}.safetensors"
        if not path.exists():
            if what == "codes":
                recipe = self.recipe("vqkd")
            else:
                codes = recipe_function("vqkd")()
                recipe = self._reading(replace(recipe_function("clip")(), data=codes.data, view=codes.view))
            ready = prepare(recipe, World())
            write_model(path, ready.method, ready.processor)
        return path

    def _reading(self, recipe: Recipe) -> Recipe:
        """The recipe with a tokeniser that is there, where it would learn one."""
        if recipe.drawn is not None:  # pictures alone
            return recipe
        key = recipe.data, recipe.tokenizer
        if key not in self.tokenisers:
            learnt = recipe.tokeniser(recipe.open(recipe.data, "train"))
            assert learnt is not None
            path = self.folder / f"{len(self.tokenisers)}.json"
            path.write_text(learnt.to_json(), encoding="utf-8")
            self.tokenisers[key] = path
        return replace(recipe, tokenizer=replace(recipe.tokenizer, path=str(self.tokenisers[key])))


@contextmanager
def shelf() -> Iterator[Shelf]:
    """A shelf in a folder that goes when it is closed."""
    with tempfile.TemporaryDirectory() as folder:
        yield Shelf(Path(folder))


def method_step(recipe: Recipe, precision: Precision | None = None) -> MethodStep:
    """The step of a recipe, by default in the precision that `--precision auto` takes."""
    ready = prepare(recipe, World())
    method = ready.method.train()
    optimiser = build_optimiser(method, recipe.settings.optimiser, method.learning_rates())
    for group in optimiser.param_groups:
        group["lr"] = recipe.settings.lr * group["factor"]
    batch = ready.finish(ready.loader.batch(0))
    chosen: Precision = "bf16" if choose_precision("auto", torch.device("cpu")) == "bf16" else "fp32"
    precision = precision or chosen
    limit = recipe.settings.optimiser.clip or float("inf")

    def step(within: Precision = precision) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=within == "bf16"):
            losses = method(batch, World(), LATE)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), limit, foreach=True)
        optimiser.step()
        method.after_step(LATE, losses.updates)
        optimiser.zero_grad(set_to_none=True)
        return float(losses.total.detach())

    # In bf16 attention is written out, where its products are counted; they are those of either precision.
    flops = products(lambda: step("bf16"))
    return MethodStep(method, batch, Contender(recipe.name, precision, step), flops)


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--rows", type=int, default=ROWS, help="of a batch, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="list the dearest operators as well")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with shelf() as recipes:
        print("| | rows | precision | rows/s | GFLOP a row | MFU |\n|---|---|---|---|---|---|")
        for name in asked.recipe:
            made = method_step(recipes.recipe(name, asked.rows))
            own, rows = made.contender, len(made.batch)
            times = race([own], asked.rounds, 1)
            seconds, rate = times.median(name), times.rates[own.precision]
            print(
                f"| {name} | {rows} | {own.precision} | {rows / seconds:.0f} | {made.flops / rows / 1e9:.3f} | "
                f"{made.flops / seconds / rate:.0%} |",
                flush=True,
            )
            if asked.profile:
                for key, spent, calls in operators(own.step):
                    print(f"    {key[:60]:60}{spent:9.2f} ms{calls:7d}")


if __name__ == "__main__":
    main()
