"""Steps that wait for their batch, and a loop that stands still while checkpoints are saved."""

from __future__ import annotations

from collections.abc import Iterator

from multiway.engine.history import Finding, History

__all__ = ["waiting_for_checkpoints", "waiting_for_data"]

TOLERATED = 0.2  # share of the step
SAVING, SAVING_TOO_MUCH = 0.01, 0.1  # shares of the loop's time


def waiting_for_data(run: History) -> Iterator[Finding]:
    """More than a fifth of the time goes into waiting for data."""
    # The first step starts the workers, and steps that evaluate spend their time elsewhere.
    evaluated = {int(line["step"]) for line in run.metrics if line.get("eval")}
    lines = [line for line in run.timings[1:] if int(line["step"]) not in evaluated]
    total = sum(float(line.get("step_seconds", 0.0)) for line in lines)
    waiting = sum(float(line.get("data_seconds", 0.0)) for line in lines)
    if len(lines) < 5 or not total > 0 or waiting / total <= TOLERATED:
        return
    saved = total / (total - waiting) if waiting < total else float("inf")
    gain = f"; without it the run would be {saved:.1f} times as fast" if saved < 100 else ""
    yield Finding(
        "warning",
        "data",
        "training waits for data",
        f"{waiting / total:.0%} of the time of {len(lines)} logged steps went into waiting for the next batch "
        f"({1000 * waiting / len(lines):.0f} of {1000 * total / len(lines):.0f} ms){gain}",
        (
            "too few workers decode pictures",
            "many small files are read from a slow or remote disk",
            "pictures are much larger than the size they are drawn at, and are decoded in full each time",
        ),
        (
            "raise the number of workers, up to the cores that are free",
            "pack the data into shards: `multiway data shard`",
            "store smaller copies, or cache decoded pictures",
        ),
    )


def waiting_for_checkpoints(run: History) -> Iterator[Finding]:
    """More than a hundredth of the loop's time goes into saving; more than a tenth is a warning."""
    # The first save makes the buffers that all others use.
    lines = [line for line in run.timings if "loop_seconds" in line][1:]
    total = sum(float(line["loop_seconds"]) for line in lines)
    stood = sum(float(line.get("checkpoint_seconds", 0.0)) for line in lines)
    if len(lines) < 5 or not total > 0 or stood / total <= SAVING:
        return
    yield Finding(
        "warning" if stood / total > SAVING_TOO_MUCH else "note",
        "checkpoints",
        "training waits for checkpoints",
        f"{stood / total:.1%} of the time between step {int(lines[0]['step'])} and {int(lines[-1]['step'])} went into saving "
        f"({stood:.1f} of {total:.1f} s); the save at the end is not counted",
        (
            "a checkpoint is due while the one before is still being written",
            "checkpoints are not written beside training (--no-checkpoint-async, or no memory for the copy)",
            "the run folder lies on a slow or remote disk",
        ),
        (
            "save less often: --checkpoint-every",
            "write them beside training: --checkpoint-async",
            "put the run folder on a local disk",
        ),
    )
