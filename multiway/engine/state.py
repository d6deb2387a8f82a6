"""What a checkpoint holds of a run, as named tensors: the method's and the optimiser's.

There is nothing else to save. Schedules are functions of the step, the data's order and augmentation of (seed, epoch,
sample), dropout of (seed, step): no generator, no iterator, no scheduler has a state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["tensors_of"]


def tensors_of(method: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of a run by name: `model.<name>` and `optimiser.<parameter>.<moment>`.

    Moments are whatever the optimiser keeps: AdamW's two and its count, a velocity of SGD and LARS. AdamW's are made (as zeros) if
    there has been no step yet, as `build_optimiser` makes velocities, so that names are the same at any time. The tensors are the
    live ones: writing into them restores the run.
    """
    named: dict[str, Tensor] = {f"model.{name}": tensor for name, tensor in method.state_dict().items()}
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            state: dict[str, Tensor] = optimiser.state[parameter]
            if not state and isinstance(optimiser, torch.optim.AdamW):
                # As torch.optim.AdamW does on its first step; the fused kernel keeps its count beside the parameter.
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            for moment, tensor in state.items():
                named[f"optimiser.{name}.{moment}"] = tensor
    return named
