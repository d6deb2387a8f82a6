"""What benchmarks beside a peer have in common: a training step, turns within rounds, and the machine's own matrix rate.

Contenders take turns within each round, so that a machine whose speed drifts drifts for all of them: times are medians over
rounds, and a ratio is the median of the rounds' ratios. By default time is that of the clock. With `time.process_time` it is the
processor's: other programs that want the same cores then cost much less, and threads that share a step are counted each, so that it
is for steps on one thread.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

__all__ = [
    "DTYPES",
    "Clock",
    "Contender",
    "Precision",
    "Times",
    "interval",
    "matrix_rate",
    "operators",
    "products",
    "race",
    "training_step",
]

Clock = Callable[[], float]  # seconds: time.perf_counter, or time.process_time
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
        begun: seconds by the clock of each contender's first two steps, in which whatever is compiled is compiled: not part of `seconds`.
    """

    first: dict[str, float]
    seconds: dict[str, list[float]]
    rates: dict[Precision, float] = field(default_factory=lambda: {"fp32": 0.0, "bf16": 0.0})
    begun: dict[str, float] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Seconds a step."""
        return statistics.median(self.seconds[name])

    def ratio(self, slower: str, faster: str) -> float:
        """How many times as long `slower` takes: the median of the rounds' ratios."""
        return statistics.median(self.ratios(slower, faster))

    def ratios(self, slower: str, faster: str) -> list[float]:
        """Round by round, how many times as long `slower` takes."""
        return [a / b for a, b in zip(self.seconds[slower], self.seconds[faster], strict=True)]


def interval(values: Sequence[float], level: float = 0.95, draws: int = 2000) -> tuple[float, float]:
    """Bootstrap interval of the median: (low, high), by percentiles of medians of samples drawn with replacement, seeded."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(draws))
    tail = (1.0 - level) / 2.0
    return medians[int(tail * draws)], medians[min(draws - 1, int((1.0 - tail) * draws))]


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


def matrix_rate(dtype: torch.dtype, size: int = 1024, seconds: float = 0.2, clock: Clock = time.perf_counter) -> float:
    """Operations per second of a square matrix product, the best of a short run."""
    left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    best, end = float("inf"), clock() + seconds
    while clock() < end:
        began = clock()
        left @ right
        best = min(best, clock() - began)
    return 2 * size**3 / best


def race(contenders: list[Contender], rounds: int, steps: int, clock: Clock = time.perf_counter) -> Times:
    """Let them take turns: in every round, `steps` steps each. The matrix rate is taken once a round."""
    found = Times({}, {each.name: [] for each in contenders})
    for each in contenders:
        began = time.perf_counter()
        found.first[each.name] = each.step()
        each.step()  # what was compiled may be compiled again where a gradient was not there at the first step
        found.begun[each.name] = time.perf_counter() - began
    for turn in range(rounds):
        for precision in {each.precision: None for each in contenders}:
            found.rates[precision] = max(found.rates[precision], matrix_rate(DTYPES[precision], clock=clock))
        # Back and forth, so that nobody always follows the same neighbour, whose memory it would inherit.
        for each in contenders if turn % 2 == 0 else reversed(contenders):
            began = clock()
            for _ in range(steps):
                each.step()
            found.seconds[each.name].append((clock() - began) / steps)
    return found


def products(step: Callable[[], object]) -> int:
    """Multiply-adds x 2 of a step's matrix products. Attention has to be written out: torch does not count its CPU kernel."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


class _Stopwatch(TorchDispatchMode):
    """Adds up processor time by operator, of forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        began = time.process_time()
        found = func(*args, **(kwargs or {}))
        spent, name = time.process_time() - began, func.overloadpacket.__name__
        self.spent[name] = self.spent.get(name, 0.0) + spent
        self.calls[name] = self.calls.get(name, 0) + 1
        return found


def operators(step: Callable[[], object], steps: int = 3, most: int = 14) -> list[tuple[str, float, int]]:
    """(operator, milliseconds of its own, calls) of a step, the dearest first, then all others, and what is not in operators.

    In processor time, which torch's profiler cannot tell from waiting for a core that others have: on one thread, a step is what it
    adds up to. What is not in operators is Python and autograd, and some microseconds a call of the stopwatch itself.
    """
    step()
    with _Stopwatch() as found:
        began = time.process_time()
        for _ in range(steps):
            step()
        whole = time.process_time() - began
    lines = [(name, 1000 * spent / steps, round(found.calls[name] / steps)) for name, spent in found.spent.items()]
    lines.sort(key=lambda line: -line[1])
    rest = lines[most:]
    others = ("all others", sum(line[1] for line in rest), sum(line[2] for line in rest))
    return [*lines[:most], others, ("outside operators", 1000 * whole / steps - sum(line[1] for line in lines), 0)]
