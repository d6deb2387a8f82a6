"""LARS: momentum SGD whose step is, tensor by tensor, in proportion to the tensor.

You, Gitman, Ginsburg; Large Batch Training of Convolutional Networks; 2017; arXiv 1708.03888. Of one tensor w with gradient g,
weight decay b, trust coefficient t, momentum m, velocity v and learning rate r:

    u = g + b w
    a = t |w| / |u|            (1 where either norm is 0, and for what is exempt)
    v <- m v + a u
    w <- w - r v               (Nesterov: w <- w - r (a u + m v))

This is the update of MoCo v3's and BYOL's code, and with v counted in units of r SimCLR's. It departs from the paper in two places, as
they do: the paper divides by |g| + b |w| (equation 6; so does the LARC that SwAV's code uses), which is the same but for the angle
between g and w, next to nothing at their decay of 1e-6; and it has r inside v, which differs while r changes. Biases and norms are
neither adapted nor decayed in SimCLR, BYOL (appendix A) and MoCo v3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from multiway.config import ConfigError
from multiway.nn.sharded import locals_of, norms

__all__ = ["LARS"]

Tensors = tuple[Tensor, ...] | list[Tensor]


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling.

    Args:
        groups: parameters, or groups of them. The steps of a group with `exempt` true are not adapted; whether it decays its own
            `weight_decay` says, as of any group.
        lr: learning rate.
        momentum: of the velocity, in [0, 1).
        weight_decay: added to the gradient, so that it is adapted with it.
        nesterov: whether the step looks ahead along the velocity.
        trust: how much of a tensor's norm it moves by at a learning rate of 1 and a momentum of 0.

    Raises:
        ConfigError: for a trust of 0 or less, a negative decay, and momenta outside [0, 1).
    """

    def __init__(
        self,
        groups: Any,
        lr: float = 0.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        trust: float = 0.001,
    ) -> None:
        if trust <= 0 or weight_decay < 0 or not 0 <= momentum < 1:
            raise ConfigError(
                f"LARS needs a trust above 0, a weight decay from 0 on and a momentum in [0, 1); given trust {trust:g}, "
                f"weight_decay {weight_decay:g}, momentum {momentum:g}"
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "trust": trust,
            "exempt": False,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of every parameter that has a gradient. Gradients stay as they are: the log reads them afterwards."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step_group(group, weights)
        return loss

    def _step_group(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        updates: Tensors = locals_of(weight.grad for weight in weights if weight.grad is not None)
        own = locals_of(weights)
        if group["weight_decay"]:
            updates = torch._foreach_add(updates, own, alpha=group["weight_decay"])
        if not group["exempt"]:
            updates = torch._foreach_mul(updates, adaptation(weights, updates, group["trust"]))
        if group["momentum"]:
            velocities = locals_of(self._velocity(weight) for weight in weights)
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, updates)
            ahead = group["nesterov"]
            updates = torch._foreach_add(updates, velocities, alpha=group["momentum"]) if ahead else velocities
        torch._foreach_add_(own, updates, alpha=-group["lr"])

    def _velocity(self, weight: Tensor) -> Tensor:
        """Under the name that torch's SGD has for it, so that checkpoints of both read alike."""
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        velocity: Tensor = state["momentum_buffer"]
        return velocity


def adaptation(weights: Tensors, updates: Tensors, trust: float) -> list[Tensor]:
    """The factor of each update, as scalars that never leave the device.

    Args:
        weights: whole, or parts that ranks hold (DTensors).
        updates: this rank's parts.
    """
    sizes, steps = norms(weights), norms(updates, weights)
    # A tensor that begins at 0 would never leave it.
    return list(torch.where((sizes > 0) & (steps > 0), trust * sizes / steps, 1.0).unbind())
