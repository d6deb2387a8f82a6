"""Low-rank adaptation: what is learnt of a matrix when little is to be changed.

E. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen: LoRA, ICLR 2022, arXiv 2106.09685, section 4.1:

    W' = W + (alpha / r) B A,     A (r, in) from a normal, B (out, r) zero, W frozen

So that nothing else need know of it, it stands where the weight is asked for (a parametrization of torch): heads that share a weight
share its change, and attention that multiplies by the weight itself sees it too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["Lora", "add_lora", "merge_lora"]


class Lora(nn.Module):
    """The change of one matrix.

    Args:
        shape: (out, in) of the matrix.
        rank: r.
        alpha: by which the change is scaled, over r.

    Raises:
        ValueError: for a rank that is none, or is no less than the matrix's own.
    """

    def __init__(self, shape: tuple[int, int], rank: int, alpha: float) -> None:
        super().__init__()
        if not 0 < rank < min(shape):
            raise ValueError(f"a change of rank {rank} to a matrix of {shape}; expected 1 to {min(shape) - 1}")
        self.scale = alpha / rank
        self.lora_down = nn.Parameter(torch.randn(rank, shape[1]) / math.sqrt(shape[1]))
        self.lora_up = nn.Parameter(torch.zeros(shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) -> (out, in)."""
        return weight + self.scale * (self.lora_up @ self.lora_down).to(weight.dtype)


def add_lora(module: nn.Module, pattern: str, rank: int, alpha: float = 0.0) -> list[str]:
    """Freeze everything in a module, and let the linear layers whose names fit learn a change of low rank.

    Args:
        module: changed in place.
        pattern: regular expression, searched for in the names of linear layers: `attention` or `(qkv|out)$`.
        rank: r.
        alpha: scale; 0 is r, which scales by 1.

    Returns:
        Names of the layers.

    Raises:
        ValueError: if the expression fits no linear layer, with some that exist.
    """
    linear = dict(_linear(module))
    chosen = [name for name in linear if re.search(pattern, name)]
    if not chosen:
        shown = ", ".join(list(linear)[:6])
        raise ValueError(f"no linear layer fits {pattern!r}; there are: {shown}, ...")
    module.requires_grad_(False)
    for name in chosen:
        out, width = linear[name].weight.shape
        parametrize.register_parametrization(linear[name], "weight", Lora((out, width), rank, alpha or float(rank)))
    return chosen


def merge_lora(module: nn.Module) -> list[str]:
    """Put the changes into the weights, so that nothing is left of the form in which they were learnt.

    Returns:
        Names of the layers.
    """
    found = [name for name, part in _linear(module) if parametrize.is_parametrized(part, "weight")]
    for name in found:
        parametrize.remove_parametrizations(module.get_submodule(name), "weight", leave_parametrized=True)
    return found


def _linear(module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear))
