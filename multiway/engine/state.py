"""What a checkpoint holds of a run, as named tensors: the method's and the optimiser's.

There is nothing else to save. Schedules are functions of the step, the data's order and augmentation of (seed, epoch,
sample), dropout of (seed, step): no generator, no iterator, no scheduler has a state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["tensors_of"]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def tensors_of(method: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of a run by name: `model.<name>` and `optimiser.<parameter>.<moment>`.

    The moments are made (as zeros) if there has been no step yet, so that names are the same at any time. The tensors
    are the live ones: writing into them restores the run.
    """
    named: dict[str, Tensor] = {f"model.{name}": tensor for name, tensor in method.state_dict().items()}
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            state: dict[str, Any] = optimiser.state[parameter]
            if not state:
                # As torch.optim.AdamW does on its first step; the fused kernel keeps its count beside the parameter.
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            for moment in _MOMENTS:
                named[f"optimiser.{name}.{moment}"] = state[moment]
    return named
