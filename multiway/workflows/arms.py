"""One cell of a comparison: a recipe trained on so many samples, measured on every task it can do.

A cell is a run folder with `cell.json` beside its weights. What went into it is hashed, so that a cell that is there already is
not computed again, and one whose recipe has changed is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from multiway.abilities import abilities_of
from multiway.config import to_json
from multiway.data.open import open_source
from multiway.data.source import Source
from multiway.data.subset import Subset
from multiway.hub.load import load
from multiway.recipes.command import parse
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import prepare
from multiway.tasks import TASKS, Result
from multiway.version import __version__
from multiway.workflows.side_by_side import Cell
from multiway.workflows.step_times import LATE
from multiway.world import World

__all__ = ["Arm", "CellFailed", "arm_recipe", "cell", "kept_cell", "measure", "measured", "run_command", "write_cell"]


@dataclass(frozen=True)
class Arm:
    """What is compared.

    Attributes:
        name: of the row in the table.
        recipe: by name.
        options: of the command line, beyond data, steps, seed and folder.
        needs: option -> the arm whose run it names; that arm is trained first.
        share: of the samples; what an arm begun from another is given on top.
    """

    name: str
    recipe: str
    options: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()
    share: float = 1.0


class CellFailed(RuntimeError):
    """Training a cell ended with an error; the message has its last lines."""


def cell(
    arm: Arm,
    folder: Path,
    data: str,
    samples: int,
    seed: int,
    gallery: int,
    others: dict[str, Path],
    threads: int = 0,
) -> dict[str, Any]:
    """Train and measure an arm, or read what was measured before.

    Args:
        folder: of the run.
        data: what all arms train on; they are measured on its `@test`.
        samples: seen in training.
        gallery: pictures of the test set in which is searched.
        others: folders of the arms it needs.
        threads: of the training process; 0 leaves it to the recipe. They change no result, and so do not belong to the cell.

    Raises:
        CellFailed: if the training command fails.
    """
    recipe, args = arm_recipe(arm, folder, data, samples, seed, others)
    asked = {
        "arm": to_json(arm),
        "recipe": recipe.identity(),
        "gallery": gallery,
        "samples": samples,
        "version": __version__,
    }
    key = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=8).hexdigest()
    before = kept_cell(folder, key)
    if before is not None:
        return before
    peak = run_command("train", *args, *(("--threads", str(threads)) if threads else ()))
    found = {
        "key": key,
        "arm": arm.name,
        "recipe": arm.recipe,
        "samples": recipe.settings.steps * recipe.settings.batch,
    }
    # A recipe of stages is several runs, of which the last is what was wanted.
    final = recipe.stages()[-1][1]
    found |= measure(Path(final.out), data, gallery) | _costs(final) | {"peak_mib": peak}
    write_cell(folder, found)
    return found


def kept_cell(folder: Path, key: str) -> Cell | None:
    """What was measured under this key before. If nothing was, the folder is made ready for it.

    A run of another key is set aside; one of this key that was interrupted stays, to be gone on with.
    """
    kept, begun = folder / "cell.json", folder.with_name(f"{folder.name}.key")
    if kept.is_file():
        before: Cell = json.loads(kept.read_text())
        if before["key"] == key:
            return before
    if folder.exists() and (not begun.is_file() or begun.read_text() != key):
        set_aside(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    begun.write_text(key)
    return None


def write_cell(folder: Path, found: Cell) -> None:
    """Keep what was measured, in one piece."""
    partial = folder / "cell.json.part"
    partial.write_text(json.dumps(found, indent=1))
    partial.replace(folder / "cell.json")


def set_aside(folder: Path) -> None:
    """Make room for a run; what is there keeps its files under the first free name."""
    number = next(n for n in range(1, 1_000_000) if not folder.with_name(f"{folder.name}-before-{n}").exists())
    folder.rename(folder.with_name(f"{folder.name}-before-{number}"))


def arm_recipe(
    arm: Arm, folder: Path, data: str, samples: int, seed: int, others: dict[str, Path]
) -> tuple[Recipe, list[str]]:
    """The arm's recipe with as many steps as the samples allow, and the command that trains it."""
    args = [arm.recipe, "--data", data, "--seed", str(seed), "--out", str(folder), *arm.options]
    for option, name in arm.needs:
        args += [option, str(others[name])]
    batch = parse(args).settings.batch
    args += ["--steps", str(max(1, round(arm.share * samples / batch)))]
    return parse(args), args


def run_command(*words: str) -> float | None:
    """Run `multiway` with these words in a process of its own; its peak memory in MiB, where the system tells.

    Raises:
        CellFailed: with the last lines that it said.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, "-m", "multiway", *words], stderr=said, stdout=subprocess.DEVNULL)
        # The kernel's own record of a finished child begins with what its parent held, so the living one is asked.
        status, peak = Path(f"/proc/{process.pid}/status"), None
        while process.poll() is None:
            with contextlib.suppress(OSError):  # no /proc here, or the process has just ended
                peak = next((int(line.split()[1]) for line in status.open() if line.startswith("VmHWM")), peak)
            time.sleep(0.2)
        if process.returncode:
            said.seek(0)
            last = "".join(said.readlines()[-15:])
            raise CellFailed(f"multiway {' '.join(words)} failed:\n{last}")
    return None if peak is None else peak / 1024


def measure(folder: Path, data: str, gallery: int) -> dict[str, Any]:
    """Every task that the trained model can do, on one gallery for all."""
    model = load(folder)
    results = measured(model, open_source(data, default_split="test"), gallery)
    return {
        "abilities": list(abilities_of(model)),
        "results": {name: result.to_json()["metrics"] for name, result in results.items()},
    }


def measured(model: Any, test: Source, gallery: int) -> dict[str, Result]:
    """Results by task of a model of pictures and texts.

    What has no shared space ranks by matching every pair; that is quadratic, hence the gallery's size.
    """
    small = Subset(test, gallery)
    able = abilities_of(model)
    tasks: list[tuple[str, Any, Any]] = []
    if "compare" in able:
        tasks.append(("retrieval", TASKS["retrieval"], small))
    elif "match" in able:
        tasks.append(("fusion", TASKS["fusion"], small))
    if {"compare", "match"} <= set(able):
        tasks.append(("rerank", TASKS["rerank"], small))
    for task, ability in (("matching", "match"), ("masked-words", "fill_mask"), ("captioning", "caption_likelihood")):
        if ability in able:
            tasks.append((task, TASKS[task], test))
    return {name: task.run(model, source) for name, task, source in tasks}


def _costs(recipe: Recipe) -> dict[str, Any]:
    """Parameters that are trained, FLOPs of a training step per pair, and the last losses."""
    ready = prepare(replace(recipe, settings=replace(recipe.settings, precision="fp32")), World())
    batch = ready.finish(ready.loader.batch(0))
    method = ready.method
    with FlopCounterMode(display=False) as counter:
        method(batch, World(), LATE).total.backward()
    lines = [json.loads(line) for line in (Path(recipe.out) / "metrics.jsonl").read_text().splitlines()]
    last = lines[-max(1, len(lines) // 5) :]
    return {
        "parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "gflops_per_pair": counter.get_total_flops() / len(batch) / 1e9,
        "losses": {name: statistics.mean(line["terms"][name]["value"] for line in last) for name in last[-1]["terms"]},
    }
