"""The optimiser: which parameter gets which learning rate and decay, and the schedule over steps."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from multiway.config import ConfigError

__all__ = ["OptimiserSpec", "build_optimiser", "parameter_groups", "schedule"]


@dataclass(frozen=True)
class OptimiserSpec:
    """AdamW and its schedule.

    Attributes:
        weight_decay: decoupled; applied to matrices only, never to biases, norms, scalars or what `no_decay` names.
        betas, epsilon: AdamW's.
        warmup: steps of linear warm-up; a value below 1 is a share of all steps.
        decay: shape of the way down.
        floor: final learning rate as a share of the peak.
        clip: greatest norm of the gradient; 0 turns clipping off.
        rules: (regular expression, multiplier) over parameter names, first match wins; 0 freezes.
        no_decay: regular expressions of further parameters without weight decay.
    """

    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    warmup: float = 0.1
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    floor: float = 0.0
    clip: float = 1.0
    rules: tuple[tuple[str, float], ...] = ()
    no_decay: tuple[str, ...] = (r"position", r"class_token", r"token.*embed")


def schedule(step: int, steps: int, spec: OptimiserSpec) -> float:
    """Share of the peak learning rate at a step, in (0, 1]: linear warm-up, then the decay to `floor`.

    A function of the step alone, so there is no scheduler state to save.
    """
    warmup = spec.warmup * steps if spec.warmup < 1 else spec.warmup
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1.0, steps - warmup))
    if spec.decay == "constant":
        return 1.0
    share = 0.5 * (1.0 + math.cos(math.pi * progress)) if spec.decay == "cosine" else 1.0 - progress
    return spec.floor + (1.0 - spec.floor) * share


def _multiplier(name: str, rules: Sequence[tuple[str, float]]) -> float:
    for pattern, factor in rules:
        if re.search(pattern, name):
            return factor
    return 1.0


def parameter_groups(
    method: nn.Module, spec: OptimiserSpec, rules: Sequence[tuple[str, float]]
) -> list[dict[str, Any]]:
    """Parameters by (learning-rate multiplier, weight decay). A multiplier of 0 also stops the gradient.

    Args:
        method: parameters are matched by their dotted names.
        spec: decay settings.
        rules: the recipe's rules, then the method's own; first match wins.

    Raises:
        ConfigError: for a rule that matches no parameter that is trained, which is always a mistake.
    """
    names = [name for name, parameter in method.named_parameters() if parameter.requires_grad]
    for pattern, _ in rules:
        if not any(re.search(pattern, name) for name in names):
            raise ConfigError(
                f"the rule {pattern!r} matches no trained parameter; names look like {', '.join(names[:3])}, ..."
            )
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in method.named_parameters():
        factor = _multiplier(name, rules)
        if factor == 0.0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim < 2 or any(re.search(pattern, name) for pattern in spec.no_decay)
        decay = 0.0 if plain else spec.weight_decay
        group = groups.setdefault((factor, decay), {"params": [], "names": [], "factor": factor, "weight_decay": decay})
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ConfigError("every parameter is frozen; there is nothing to train: give some rule a factor above 0")
    return list(groups.values())


def build_optimiser(method: nn.Module, spec: OptimiserSpec, rules: Sequence[tuple[str, float]]) -> torch.optim.AdamW:
    """AdamW over the groups; the fused kernel where every parameter allows it."""
    groups = parameter_groups(method, spec, rules)
    return torch.optim.AdamW(groups, lr=0.0, betas=spec.betas, eps=spec.epsilon, fused=True)
