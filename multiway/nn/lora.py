"""Low-rank adaptation: what is learnt of a matrix when little is to be changed.

E. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen: LoRA, ICLR 2022, arXiv 2106.09685, section 4.1:

    W' = W + (alpha / r) B A,     A (r, in) from a normal, B (out, r) zero, W frozen

A changed layer gives W' where it is asked for its `weight`: attention that multiplies by a slice of the weight sees the change too.
The changes are a module of their own, beside the one that they change, whose tensors keep number, names and values. So whatever goes
by these (starting from other weights, making a twin equal, adding a part that copies another) need not know that anything changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor, nn

__all__ = ["Lora", "LowRank"]


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
        self.down = nn.Parameter(torch.randn(rank, shape[1]) / math.sqrt(shape[1]))
        self.up = nn.Parameter(torch.zeros(shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) -> (out, in)."""
        # In full precision, so that the merged weight is this one to the bit; the product with the tokens is what costs.
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scale * (self.up @ self.down).to(weight.dtype)


class LowRank(nn.Module):
    """The changes of a module's matrices, under the names of the layers: `blocks.0.attention.qkv.up`.

    Making it freezes everything in the module.

    Args:
        module: changed in place; not registered here.
        pattern: regular expression, searched for in the names of linear layers: `attention` or `(qkv|out)$`.
        rank: r.
        alpha: scale; 0 is r, which scales by 1.
        skip: says of a layer's name whether it is left alone whatever fits; None of none.

    Attributes:
        layers: names of those that are changed.

    Raises:
        ValueError: if the expression is none, or fits no linear layer (with some that exist), or the rank is none for one.
    """

    def __init__(
        self,
        module: nn.Module,
        pattern: str,
        rank: int,
        alpha: float = 0.0,
        skip: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__()
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        linear = {name: part for name, part in _linear(module) if skip is None or not skip(name)}
        self.layers = [name for name in linear if expression.search(name)]
        if not self.layers:
            shown = ", ".join(list(linear)[:6])
            raise ValueError(f"no linear layer fits {pattern!r}; there are: {shown}, ...")
        module.requires_grad_(False)
        for name in self.layers:
            part = linear[name]
            out, width = part.weight.shape  # type: ignore[union-attr, misc]
            try:
                change = Lora((int(out), int(width)), rank, alpha or float(rank))
            except ValueError as error:
                raise ValueError(f"{name}: {error}, or an expression that does not fit it") from error
            self._keep(name, change)
            part.__dict__["change"] = change  # beside its parameters and parts, not one of them
            part.__class__ = _changed(type(part))  # type: ignore[arg-type]

    def _keep(self, name: str, change: Lora) -> None:
        # Straight into the tables: layers may be called by names that attributes of a module have.
        *above, last = name.split(".")
        parts = self._modules
        for each in above:
            parts = (parts.get(each) or parts.setdefault(each, nn.Module()))._modules  # type: ignore[union-attr]
        parts[last] = change

    @torch.no_grad()
    def merge(self, module: nn.Module) -> None:
        """Put the changes into the weights of the module that was given, so that nothing is left of the form in which they were
        learnt. What was frozen stays frozen; this object is of no use afterwards."""
        for name in self.layers:
            part = module.get_submodule(name)
            part._parameters["weight"].copy_(part.weight)  # type: ignore[union-attr, arg-type]
            del part.__dict__["change"]
            part.__class__ = type(part).__mro__[1]


@cache
def _changed(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of layers whose weight is the changed one."""

    def weight(self: nn.Module) -> Tensor:
        return self.__dict__["change"](self._parameters["weight"])  # type: ignore[no-any-return]

    return type(f"Changed{kind.__name__}", (kind,), {"weight": property(weight), "__module__": __name__})


def _linear(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers that multiply by a matrix, whatever class they are of; looking a row up is no product."""
    for name, part in module.named_modules():
        weight = part._parameters.get("weight")
        if weight is not None and weight.ndim == 2 and not isinstance(part, nn.Embedding):
            yield name, part
