"""How a run is run: what the loop must know besides the method and the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from multiway.config import LATER
from multiway.engine.optim import OptimiserSpec
from multiway.engine.tracking import targets

__all__ = ["OPERATIONAL", "Settings"]


# What a run would stumble over later: in its first save, in its workers, or never, learning backwards.
_LEAST = {
    "lr": 0,
    "horizon": 0,
    "log_every": 1,
    "evaluate_every": 0,
    "checkpoint_every": 1,
    "keep_last": 1,
    "keep_best": 0,
    "bad_rows": 0,
    "threads": 0,
    "workers": 0,
}


@dataclass(frozen=True)
class Settings:
    """Of the loop.

    Attributes:
        steps: optimiser steps to take. Operational: a finished run given more of them goes on.
        horizon: step at which the learning-rate schedule ends; 0 means `steps`. Part of the run's identity, because
            it decides the learning rate of every step; beyond it the rate stays at the floor.
        batch: rows per optimiser step, over all ranks and micro-batches.
        lr: peak learning rate.
        seed: of everything random.
        device: `cpu`, `cuda`, or `auto`.
        precision: `fp32`, or `bf16` autocast with fp32 weights; `auto` takes bf16 where the machine has it.
        accumulate: micro-batches per step; a contrastive loss then sees only the negatives of its micro-batch.
        cache: rows of a micro-batch of gradient caching (`engine/cached.py`), which divides a rank's batch: all its negatives in the
            memory of so few rows. 0 is off. Operational; dropout draws for each micro-batch by itself.
        cache_bf16: with `cache`, keep the tokens that a fused pass reads, and their gradients, in bfloat16.
        cache_on_cpu: with `cache`, keep them in the main memory.
        compile: run the method through torch.compile.
        log_every, evaluate_every, checkpoint_every: in steps; with `evaluate_every` 0 only the end is evaluated.
        keep_last, keep_best: checkpoints that stay.
        rollback: steps in a row whose loss or gradient is not finite, after which the checkpoint before them is gone back to
            (`engine/rollback.py`); 0 never does.
        bad_rows: share of unreadable rows above which training stops.
        threads: CPU threads; 0 leaves torch's choice.
        workers: processes that decode pictures; 0 decodes in the training process.
        shuffle: rows of an epoch: `global`, all together; `shards`, a few shards at a time, for storage on which jumping is slow.
        shuffle_window: shards that are shuffled together.
        draft: decode large JPEGs at a half, a quarter or an eighth of their size in training, and resize only what is kept: up to three
            times as fast, with pixels that differ by half a grey level on average.
        optimiser: which one, warm-up, decay, rules.
        track: where the numbers are sent as well: `wandb`, `wandb:PROJECT`, `mlflow`, `mlflow:URI`.
        shard: what each of several ranks keeps (`engine/sharding.py`): `none`, everything (DDP); `full`, its share of parameters,
            gradients and moments (FSDP2); `hybrid`, a share of a copy that a group of ranks has together. One rank keeps everything.
        shards: with `hybrid`, ranks to a copy; 0 for those of a node, as `torchrun` tells.
        checkpoint_blocks: recompute every transformer block in the backward pass and keep its input alone (`nn/units.py`).
        reduce: in what gradients are summed over ranks: the weights' own fp32, or bf16, half the bytes.
        checkpoint_async: write checkpoints beside training, from a copy in main memory (`engine/background.py`). Operational.
    """

    steps: int
    batch: int
    lr: float
    horizon: int = 0
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    accumulate: int = 1
    cache: int = field(default=0, metadata=LATER)
    cache_bf16: bool = field(default=False, metadata=LATER)
    cache_on_cpu: bool = field(default=False, metadata=LATER)
    compile: bool = False
    log_every: int = 10
    evaluate_every: int = 0
    checkpoint_every: int = 100
    keep_last: int = 2
    keep_best: int = 1
    rollback: int = field(default=20, metadata=LATER)
    bad_rows: float = 0.05
    threads: int = 0
    workers: int = 0
    shuffle: Literal["global", "shards"] = field(default="global", metadata=LATER)
    shuffle_window: int = field(default=8, metadata=LATER)
    draft: bool = field(default=False, metadata=LATER)
    optimiser: OptimiserSpec = OptimiserSpec()
    track: tuple[str, ...] = field(default=(), metadata=LATER)
    shard: Literal["none", "full", "hybrid"] = field(default="none", metadata=LATER)
    shards: int = field(default=0, metadata=LATER)
    checkpoint_blocks: bool = field(default=False, metadata=LATER)
    reduce: Literal["fp32", "bf16"] = field(default="fp32", metadata=LATER)
    checkpoint_async: bool = field(default=True, metadata=LATER)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.accumulate < 1:
            raise ValueError(
                f"steps, batch and accumulate must be at least 1; given {self.steps}, {self.batch}, {self.accumulate}"
            )
        for name, least in _LEAST.items():
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name} is {value}; expected {least} or more")
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} does not divide into {self.accumulate} micro-batches")
        if self.shuffle_window < 1:
            raise ValueError(
                f"shuffle_window is {self.shuffle_window}; expected 1 shard or more to be shuffled together"
            )
        if self.shuffle == "global" and self.shuffle_window != 8:
            raise ValueError(
                f"shuffle_window={self.shuffle_window} says how many shards are shuffled together; set shuffle=shards too"
            )
        if self.rollback < 0:
            raise ValueError(f"rollback is {self.rollback}; expected bad steps in a row, or 0 for never")
        if self.cache < 0:
            raise ValueError(f"cache is {self.cache}; expected the rows of a micro-batch, or 0 to be without")
        if self.cache and (self.accumulate > 1 or self.compile):
            other = f"accumulate={self.accumulate}" if self.accumulate > 1 else "compile"
            raise ValueError(
                f"cache={self.cache} and {other} are both given; gradient caching has micro-batches of its own, with all negatives, and "
                "replays them without compilation: give one of the two"
            )
        if not self.cache and (self.cache_bf16 or self.cache_on_cpu):
            raise ValueError(
                "cache_bf16 and cache_on_cpu say how gradient caching keeps tokens; set cache to its rows too"
            )
        if self.cache and self.shard != "none":
            raise ValueError(
                f"cache={self.cache} and shard={self.shard} are both given; gradient caching adds up whole gradients over its "
                "micro-batches by itself: give one of the two (checkpoint_blocks saves activations and goes with either)"
            )
        if self.shards < 0 or (self.shards and self.shard != "hybrid"):
            raise ValueError(
                f"shards={self.shards} with shard={self.shard}; it is the number of ranks that share a copy with shard=hybrid, or 0"
            )
        targets(self.track)  # a misspelt one is refused here

    @property
    def end_of_schedule(self) -> int:
        """The step at which the learning rate reaches its floor."""
        return self.horizon or self.steps


# Fields that may differ between two starts of one run: they change how fast or how long, never what is computed.
OPERATIONAL = frozenset(
    {
        "steps",
        "device",
        "cache",
        "cache_on_cpu",
        "compile",
        "log_every",
        "evaluate_every",
        "checkpoint_every",
        "checkpoint_async",
        "keep_last",
        "keep_best",
        "bad_rows",
        "threads",
        "track",
        "workers",
        "shard",
        "shards",
        "checkpoint_blocks",
    }
)
