"""The optimiser: which one, and which parameter gets which learning rate and decay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from multiway.config import LATER, ConfigError
from multiway.engine.lars import LARS
from multiway.engine.schedule import schedule, set_rates, weight_decay_at
from multiway.nn.sharded import is_sharded

__all__ = ["OptimiserSpec", "build_optimiser", "parameter_groups", "schedule", "set_rates", "weight_decay_at"]


@dataclass(frozen=True)
class OptimiserSpec:
    """The optimiser and its schedules.

    Learning rates are given as they are: a paper's `base x batch / 256` is worked out where the recipe is written.

    Attributes:
        weight_decay: of AdamW decoupled, of SGD and LARS added to the gradient; see `exempt`.
        betas, epsilon: AdamW's.
        warmup: steps of linear warm-up; a value below 1 is a share of all steps.
        decay: shape of the way down; `steps` falls by `factor` at each of `steps`.
        floor: final learning rate as a share of the peak.
        clip: greatest norm of the gradient; 0 turns clipping off.
        rules: (regular expression, multiplier) over parameter names, first match wins; 0 freezes.
        no_decay: regular expressions of further parameters without weight decay.
        kind: `adamw`; `sgd`, with momentum; or `lars`, SGD whose steps are in proportion to each tensor (`engine/lars.py`).
        momentum, nesterov: of SGD and LARS.
        trust: LARS's coefficient.
        steps: where the rate falls, as steps or, below 1, shares of all steps. MoCo v1: 0.6 and 0.8 (epochs 120 and 160 of 200).
        factor: by which it falls.
        weight_decay_end: weight decay at the end, reached along half a cosine (DINO: 0.04 to 0.4); None keeps it as it is.
        constant_rate: regular expressions of parameters whose rate is warmed up and then never decayed (SimSiam's predictor).
        exempt: whether biases, norms, scalars and what `no_decay` names go without weight decay, and without LARS's adaptation.
            The code of MoCo v1 and v2 and of SimSiam decays every parameter; SwAV's decays and adapts every one.
        unfreeze: (regular expression, when) over parameter names, first match wins: the step from which they learn, or below 1 the
            share of all steps; until then they are frozen (`engine/unfreeze.py`).
        gradual: share of all steps over which layers join one by one, the uppermost first (ULMFiT), after what `unfreeze` names.

    Raises:
        ConfigError: for numbers out of range, and for what would change nothing beside the rest.
    """

    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    warmup: float = 0.1
    decay: Literal["cosine", "linear", "constant", "steps"] = "cosine"
    floor: float = 0.0
    clip: float = 1.0
    rules: tuple[tuple[str, float], ...] = ()
    no_decay: tuple[str, ...] = (r"position", r"class_token", r"token.*embed")
    kind: Literal["adamw", "sgd", "lars"] = field(default="adamw", metadata=LATER)
    momentum: float = field(default=0.9, metadata=LATER)
    nesterov: bool = field(default=False, metadata=LATER)
    trust: float = field(default=0.001, metadata=LATER)
    steps: tuple[float, ...] = field(default=(), metadata=LATER)
    factor: float = field(default=0.1, metadata=LATER)
    weight_decay_end: float | None = field(default=None, metadata=LATER)
    constant_rate: tuple[str, ...] = field(default=(), metadata=LATER)
    exempt: bool = field(default=True, metadata=LATER)
    unfreeze: tuple[tuple[str, float], ...] = field(default=(), metadata=LATER)
    gradual: float = field(default=0.0, metadata=LATER)

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or self.trust <= 0 or not 0 < self.factor < 1:
            raise ConfigError(
                "momentum lies in [0, 1), trust is above 0 and a factor of the rate lies in (0, 1); given momentum "
                f"{self.momentum:g}, trust {self.trust:g}, factor {self.factor:g}"
            )
        if not 0 <= self.gradual < 1 or any(when < 0 for _, when in self.unfreeze):
            raise ConfigError(
                f"layers join over a share of all steps in [0, 1), and parts from step 0 on or later; given gradual {self.gradual:g}, "
                f"unfreeze {self.unfreeze}"
            )
        if self.warmup < 0 or self.clip < 0 or not 0 <= self.floor <= 1:
            raise ConfigError(
                f"warm-up and clipping are 0 or more, and the floor is a share of the peak; given warmup {self.warmup:g}, clip "
                f"{self.clip:g}, floor {self.floor:g}"
            )
        if self.kind == "adamw" and not (all(0 <= beta < 1 for beta in self.betas) and self.epsilon > 0):
            raise ConfigError(
                f"AdamW's betas lie in [0, 1) and its epsilon is above 0; given {self.betas}, {self.epsilon:g}"
            )
        if self.weight_decay < 0 or (self.weight_decay_end or 0) < 0:
            raise ConfigError(
                f"weight decay is 0 or more; given {self.weight_decay:g}, at the end {self.weight_decay_end}"
            )
        if self.nesterov and (self.kind == "adamw" or not self.momentum):
            raise ConfigError(
                f"nesterov looks ahead along a momentum, of which {self.kind} with momentum {self.momentum:g} has none: leave it "
                "out, or choose kind sgd or lars with a momentum above 0"
            )
        if (self.decay == "steps") != bool(self.steps):
            raise ConfigError(
                f"decay {self.decay!r} with steps {self.steps}: the rate falls at `steps` where decay is 'steps', and only there. "
                "Give both, such as --optimiser.decay steps --optimiser.steps 0.6 0.8, or neither"
            )
        if any(each <= 0 for each in self.steps):
            raise ConfigError(
                f"the rate falls at steps after the first, or at shares above 0 of all; given {self.steps}"
            )
        if self.decay == "steps" and self.floor:
            raise ConfigError(
                f"floor is {self.floor:g}, but a rate that falls in steps ends where they lead it, by a factor of {self.factor:g} each: "
                "leave it out"
            )


def _multiplier(name: str, rules: Sequence[tuple[str, float]]) -> float:
    for pattern, factor in rules:
        if re.search(pattern, name):
            return factor
    return 1.0


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def parameter_groups(
    method: nn.Module, spec: OptimiserSpec, rules: Sequence[tuple[str, float]]
) -> list[dict[str, Any]]:
    """Parameters by what they share: `factor` (of the rate; 0 also stops the gradient), `weight_decay`, whether they are `exempt` from
    decay and adaptation, and whether their rate is `constant` after warm-up. Those of which ranks hold parts are apart from whole
    ones, as fused kernels ask.

    Args:
        method: parameters are matched by their dotted names.
        spec: decay settings.
        rules: the recipe's rules, then the method's own; first match wins.

    Raises:
        ConfigError: for a rule that matches no parameter that is trained, which is always a mistake.
    """
    names = [name for name, parameter in method.named_parameters() if parameter.requires_grad]
    for said, patterns in (("the rule", [pattern for pattern, _ in rules]), ("constant_rate", spec.constant_rate)):
        for pattern in patterns:
            if not any(re.search(pattern, name) for name in names):
                raise ConfigError(
                    f"{said} {pattern!r} matches no trained parameter; names look like {', '.join(names[:3])}, ..."
                )
    groups: dict[tuple[float, bool, bool, bool], dict[str, Any]] = {}
    for name, parameter in method.named_parameters():
        factor = _multiplier(name, rules)
        if factor == 0.0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        exempt = spec.exempt and (parameter.ndim < 2 or _fits(name, spec.no_decay))
        constant = _fits(name, spec.constant_rate)
        decay = 0.0 if exempt else spec.weight_decay
        fresh = {"factor": factor, "weight_decay": decay, "exempt": exempt, "constant": constant}
        key = (factor, exempt, constant, is_sharded(parameter))
        group = groups.setdefault(key, {"params": [], "names": [], **fresh})
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ConfigError("every parameter is frozen; there is nothing to train: give some rule a factor above 0")
    return list(groups.values())


def build_optimiser(
    method: nn.Module, spec: OptimiserSpec, rules: Sequence[tuple[str, float]]
) -> torch.optim.Optimizer:
    """The optimiser over the groups, by torch's fused kernels where it has them. Its rates are for `set_rates` to give.

    Velocities exist, as zeros, from the beginning: a parameter that first learns later needs no case of its own, and what a
    checkpoint holds has the same names at any time.
    """
    groups = parameter_groups(method, spec, rules)
    if spec.kind == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=spec.betas, eps=spec.epsilon, fused=True)
    optimiser: torch.optim.Optimizer
    if spec.kind == "sgd":
        # SGD has no fused kernel for parts that ranks hold.
        kernel = {"foreach": True} if any(is_sharded(each) for each in method.parameters()) else {"fused": True}
        optimiser = torch.optim.SGD(groups, lr=0.0, momentum=spec.momentum, nesterov=spec.nesterov, **kernel)  # type: ignore[arg-type]
    else:
        optimiser = LARS(groups, momentum=spec.momentum, nesterov=spec.nesterov, trust=spec.trust)
    for parameter in (each for group in groups for each in group["params"] if spec.momentum):
        optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return optimiser
