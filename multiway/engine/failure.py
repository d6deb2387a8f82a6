"""Two ends of a run that its own code did not cause, said in words: memory that ran out, and a rank that is gone.

Both come from the depths of PyTorch as a `RuntimeError` about an allocator or a socket. What a person needs is which settings of
this very run to change, and that nothing saved is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from multiway.engine.identity import RunError

__all__ = ["OutOfMemory", "RankLost", "explained", "is_lost_rank", "is_out_of_memory"]

# What the CPU allocator, cuDNN and cuBLAS, and Python's own say when there is no memory; CUDA's has a type of its own.
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
# What gloo, NCCL and the store that introduces ranks to each other say when one of them has ended.
_GONE = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|socket closed|remote process exited|socket ?timeout|"
    r"timed out waiting|failed to (recv|send)|ncclRemoteError|ncclSystemError|NCCL communicator was aborted",
    re.IGNORECASE,
)


class OutOfMemory(RunError):
    """There is not enough memory for a step of this run. Names the settings that bring it down."""


class RankLost(RunError):
    """Another rank has ended, so that this one waits in vain."""


def is_out_of_memory(error: BaseException) -> bool:
    """True if memory ran out: on a GPU, in PyTorch's CPU allocator, or in Python."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def is_lost_rank(error: BaseException) -> bool:
    """True if a collective failed because another rank is not there any more."""
    if isinstance(error, RunError):
        return False
    return isinstance(error, (RuntimeError, dist.DistError)) and bool(_GONE.search(str(error)))


def explained(
    error: BaseException, path: Path, config: Mapping[str, Any], steps: Sequence[int], ranks: int
) -> RunError | None:
    """The error in words, or None if it is of another kind, which then speaks for itself.

    Args:
        path: of the run.
        config: the run's recipe as JSON.
        steps: that have a checkpoint, ascending.
        ranks: of the run.
    """
    if is_out_of_memory(error):
        advice = "; or ".join(_cheaper(config, ranks)) or "use a smaller batch or model"
        return OutOfMemory(f"out of memory in {path}: {_first_line(error)}. {_stands(steps)} To need less, {advice}.")
    if ranks > 1 and is_lost_rank(error):
        return RankLost(
            f"another rank of {path} has ended or cannot be reached ({_first_line(error)}), so this one stops. {_stands(steps)} Its own "
            "messages, above or on its machine, say why; `torchrun --max-restarts N` starts all ranks again by itself."
        )
    return None


def _cheaper(config: Mapping[str, Any], ranks: int) -> Iterator[str]:
    """What to change, the exact before the approximate: settings as they are given on the command line."""
    settings = config.get("settings")
    given: Mapping[str, Any] = settings if isinstance(settings, Mapping) else {}
    if not given.get("checkpoint_blocks") and not all(_switches(config.get("method"))):
        yield "recompute activations in the backward pass (--checkpoint-blocks), which changes no number"
    if ranks > 1 and given.get("shard", "none") == "none":
        yield "let each rank keep its share of weights and moments alone (--shard full), which changes no number"
    batch, accumulate, cache = (int(given.get(name) or 0) for name in ("batch", "accumulate", "cache"))
    own = batch // max(ranks, 1)
    if own > 1 and accumulate <= 1 and given.get("shard", "none") == "none":
        rows = max(1, (cache or own) // 2)
        yield f"encode {rows} rows at a time with all {batch} as negatives (--cache {rows})"
    if own > max(accumulate, 1) and not cache:
        parts = 2 * max(accumulate, 1)
        yield f"take the step in {parts} parts (--accumulate {parts}; contrastive losses then see the negatives of a part)"
    if given.get("precision") == "fp32":
        yield "compute in bfloat16 (--precision bf16, a new run)"
    if batch > 1:
        yield f"use fewer rows (--batch {batch // 2}, a new run) or more ranks"


def _switches(value: Any) -> Iterator[bool]:
    """Every field named `checkpoint` of a method's configuration: whether a tower recomputes its blocks by itself."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "checkpoint" and isinstance(inner, bool):
                yield inner
            yield from _switches(inner)


def _stands(steps: Sequence[int]) -> str:
    if not steps:
        return "No checkpoint was due yet, so the same command begins anew."
    return f"The checkpoint of step {steps[-1]:,} is intact, and the same command goes on from it."


def _first_line(error: BaseException) -> str:
    """The cause without the C++ stack that PyTorch adds to it."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    return text.rstrip(".")[:300]
