"""Which parameters learn at a step: parts that are frozen at first, and join.

Howard and Ruder, Universal Language Model Fine-tuning (ULMFiT), 2018, arXiv 1801.06146, section 3.3: a trained model is unfrozen from
its last layer downwards, so that what is new learns first and what is general is not shaken. Frozen parameters have no gradient at
all: none is computed for them, nor through what lies below the lowest that learns.

Who learns is a function of the step. Moments of the optimiser begin where a parameter joins, and its rate is the schedule's of then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multiway.config import ConfigError
from multiway.engine.optim import OptimiserSpec
from multiway.methods.layer_decay import layer_depths
from multiway.methods.method import Method

__all__ = ["Joining", "joining_rules", "joining_steps", "top_down"]


def joining_rules(method: Method, spec: OptimiserSpec) -> list[tuple[str, float]]:
    """All rules of a run: those that are written out, then the layers' from the top. Of what is frozen for good there are none."""
    layers = top_down(layer_depths(method), spec.gradual) if spec.gradual else []
    return [*spec.unfreeze, *layers]


class Joining:
    """Freezes and thaws the parameters of an optimiser, by the step alone.

    Args:
        groups: of the optimiser (`optim.parameter_groups`).
        rules: (regular expression, when) over their names, first match wins: the step from which they learn, or below 1 the
            share of all. What no rule names learns from the beginning.
        steps: of the schedule.

    Raises:
        ConfigError: for a rule that matches nothing; if nothing learns at first.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]], rules: Sequence[tuple[str, float]], steps: int) -> None:
        named = {name: each for group in groups for name, each in zip(group["names"], group["params"], strict=True)}
        found = joining_steps(named, rules, steps)
        self.when = [(parameter, found[name]) for name, parameter in named.items()]
        if found and min(found.values()) > 0:
            raise ConfigError(
                f"unfreeze leaves nothing to learn before step {min(found.values())}; let some part learn from the beginning"
            )

    def at(self, step: int) -> bool:
        """Let learn what learns at a step; True if that is not what did so far."""
        changed = False
        for parameter, begins in self.when:
            if parameter.requires_grad != (step >= begins):
                parameter.requires_grad_(step >= begins)
                changed = True
        return changed


def joining_steps(names: Iterable[str], rules: Sequence[tuple[str, float]], steps: int) -> dict[str, int]:
    """Name -> the step from which that parameter learns; arguments as of `Joining`."""
    names = list(names)
    for pattern, _ in rules:
        if not any(re.search(pattern, name) for name in names):
            raise ConfigError(
                f"unfreeze {pattern!r} matches no trained parameter; names look like {', '.join(names[:3])}, ..."
            )

    def begins(name: str) -> int:
        when = next((when for pattern, when in rules if re.search(pattern, name)), 0.0)
        return math.ceil(when * steps - 1e-6 if when < 1 else when)

    return {name: begins(name) for name in names}


def top_down(depths: Sequence[tuple[str, int]], until: float) -> list[tuple[str, float]]:
    """ULMFiT's rules: layers join one by one from the top, at equal distances; what is above all blocks learns from the beginning.

    Args:
        depths: (regular expression, layers from the top) (`methods.layer_decay.layer_depths`); 1 is the uppermost block.
        until: share of all steps after which the lowest learns too.
    """
    lowest = max((depth for _, depth in depths), default=1)
    return [(pattern, until * depth / lowest) for pattern, depth in depths]
