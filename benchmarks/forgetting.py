"""What a run forgets while it is tuned for a task, by the way in which it is tuned.

    python benchmarks/forgetting.py runs/compare/clip [--task entailment] [--samples 25600] [--out runs/forgetting] [--threads 1]

    all            every weight learns
    lower rates    each block at 0.65 of the rate of the one above it (layer decay)
    low rank       changes of rank 8 to every linear layer (LoRA), the head in full
    head alone     the method frozen
    half way       weights half way between the run and `all` (WiSE-FT)

Each is measured on the task, and on what the run could do before: retrieval, matching, hidden words, captions, where it does these.
Tuned runs are kept. The figures stand in docs/fine-tuning.md, with date and machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from multiway.cli.main import main as multiway
from multiway.data.annotated.open import open_examples
from multiway.data.open import open_source
from multiway.hub.load import load
from multiway.recipes.world import WORLD
from multiway.tasks import TASKS
from multiway.workflows.kept import kept

WAYS: dict[str, tuple[str, ...]] = {
    "all": (),
    "lower rates": ("--method.layer-decay", "0.65"),
    "low rank": ("--method.lora", "."),
    "head alone": ("--method.freeze", "base"),
}
BATCH = 64


def figure(metric: Any) -> str:
    """Value and interval, in per cent or nats."""
    scale, digits = (1.0, 3) if metric.name.endswith("nats") else (100.0, 1)
    value, low, high = (f"{scale * each:.{digits}f}" for each in (metric.value, metric.low, metric.high))
    return f"{value} ({low}–{high})"


def main() -> None:
    """Tune in every way, measure, print a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--task", default="entailment")
    parser.add_argument("--data", default=WORLD)
    parser.add_argument("--samples", type=int, default=25_600)
    parser.add_argument("--out", type=Path, default=Path("runs/forgetting"))
    parser.add_argument("--threads", default="1")
    asked = parser.parse_args()
    folder = asked.out / Path(asked.run).name / asked.task
    tuned: dict[str, str] = {}
    for way, options in WAYS.items():
        tuned[way] = str(folder / way.replace(" ", "-"))
        words = [
            "finetune",
            asked.run,
            "--task",
            asked.task,
            "--data",
            asked.data,
            "--batch",
            str(BATCH),
            "--threads",
            asked.threads,
        ]
        words += ["--steps", str(asked.samples // BATCH), "--out", tuned[way], *options]
        if multiway(words) != 0:
            raise SystemExit(f"{way}: the tuning failed")
    tuned["half way"] = str(folder / "half-way.safetensors")
    if multiway(["average", asked.run, tuned["all"], "--alpha", "0.5", "--out", tuned["half way"]]) != 0:
        raise SystemExit("the average failed")
    task, before, source = TASKS[asked.task], load(asked.run), open_source(f"{asked.data}@test")
    rows: list[list[str]] = []
    head: list[str] = []
    for way, path in tuned.items():
        model = load(path)
        own = task.run(model, open_examples(asked.data, asked.task, "test")).metrics[task.best]  # type: ignore[attr-defined]
        others = list(kept(before, model, source))
        if not rows:
            head = ["", f"{asked.task}, {own.name}", *(f"{each.task}, {each.after.name}" for each in others)]
            rows.append(["before", "", *(figure(each.before) for each in others)])
        rows.append([way, figure(own), *(figure(each.after) for each in others)])
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
