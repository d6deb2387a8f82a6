"""What benchmarks beside a peer have in common: a training step, turns within rounds, and the machine's own matrix rate.

Contenders take turns within each round, so that a machine whose speed drifts drifts for all of them: times are medians over
rounds, and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["DTYPES", "Contender", "Precision", "Times", "matrix_rate", "products", "race", "training_step"]

Precision = Literal["fp32", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Contender:
    """One whole training step, ready to be taken.

    Attributes:
        name: for the table.
        precision: fp32, or bf16 by autocast.
        step: takes the step and returns its loss.
    """

    name: str
    precision: Precision
    step: Callable[[], float]


@dataclass
class Times:
    """Of one race.

    Attributes:
        first: each contender's loss at its first step, before anything was learnt.
        seconds: each contender's time of a step, one number per round.
        rates: operations per second of the machine's matrix product, the best of all rounds.
    """

    first: dict[str, float]
    seconds: dict[str, list[float]]
    rates: dict[Precision, float] = field(default_factory=lambda: {"fp32": 0.0, "bf16": 0.0})

    def median(self, name: str) -> float:
        """Seconds a step."""
        return statistics.median(self.seconds[name])

    def ratio(self, slower: str, faster: str) -> float:
        """How many times as long `slower` takes: the median of the rounds' ratios."""
        return statistics.median(a / b for a, b in zip(self.seconds[slower], self.seconds[faster], strict=True))


def training_step(
    model: nn.Module, optimiser: torch.optim.Optimizer, loss: Callable[[], Tensor], precision: Precision
) -> Callable[[], float]:
    """Forward, backward, clipping of the gradient, optimiser, zeroing."""

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return float(value.detach())

    return step


def matrix_rate(dtype: torch.dtype, size: int = 1024, seconds: float = 0.2) -> float:
    """Operations per second of a square matrix product, the best of a short run."""
    left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def race(contenders: list[Contender], rounds: int, steps: int) -> Times:
    """Let them take turns: in every round, `steps` steps each. The matrix rate is taken once a round."""
    found = Times({each.name: each.step() for each in contenders}, {each.name: [] for each in contenders})
    for turn in range(rounds):
        for precision, dtype in DTYPES.items():
            found.rates[precision] = max(found.rates[precision], matrix_rate(dtype))
        # Back and forth, so that nobody always follows the same neighbour, whose memory it would inherit.
        for each in contenders if turn % 2 == 0 else reversed(contenders):
            began = time.perf_counter()
            for _ in range(steps):
                each.step()
            found.seconds[each.name].append((time.perf_counter() - began) / steps)
    return found


def products(step: Callable[[], float]) -> int:
    """Multiply-adds x 2 of a step's matrix products. Attention has to be written out: torch does not count its CPU kernel."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()
