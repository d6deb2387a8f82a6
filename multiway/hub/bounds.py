"""Building the model that a stranger's file describes, within bounds that the file itself sets.

A header of a few kilobytes can describe a model that no machine has room for. What is built from it has to fit the file's tensors in
the end, so whatever is much larger on the way there is refused: sizes in the configuration, tensors before they are made, and how
many parameters and buffers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module
from torch.overrides import TorchFunctionMode

__all__ = ["Bounds", "TooLarge", "numbers_in", "odd_sizes"]

LARGEST_SIZE = 1 << 24
"""No width, length or count of a model is above this, unless a tensor of the file is as long."""
ROOM = (
    1 << 24
)  # numbers that a model may need besides those of its file: masks, tables of positions, what is thrown away
SPARE = 1000  # parameters and buffers that it may make besides

_SIZED = ("empty", "zeros", "ones", "full", "rand", "randn", "randint", "randperm", "tril_indices", "triu_indices")
_REPEATED = ("repeat", "tile", "repeat_interleave", "one_hot", "new_empty", "new_zeros", "new_ones", "new_full")
_PRODUCTS = ("matmul", "__matmul__", "mm", "bmm", "linear")


class TooLarge(ValueError):
    """A model that its file has not the tensors for."""


class Bounds(TorchFunctionMode):
    """A context in which modules are built: what would be too large is refused before there is memory for it.

    Args:
        shapes: of the file's tensors.

    Raises:
        TooLarge: while it is open, saying what was asked for.
    """

    def __init__(self, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.own = sum(map(prod, shapes))
        self.most = self.own + ROOM
        self.count = 4 * len(shapes) + SPARE
        self._made = self._numbers = 0
        self._hooks: list[Any] = []

    def __enter__(self) -> Bounds:
        super().__enter__()
        self._hooks = [
            module.register_module_parameter_registration_hook(self._registered),
            module.register_module_buffer_registration_hook(self._registered),
        ]
        return self

    def __exit__(self, *exception: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*exception)

    def _registered(self, owner: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None:
            return
        self._made += 1
        self._numbers += tensor.numel()
        # Some are made twice, by copying and loading; twice the file's is no attack yet.
        if self._made > self.count or self._numbers > 2 * self.most:
            raise TooLarge(
                f"it has {self._made:,} parameters and buffers or more, with {self._numbers:,} numbers; all tensors of the file have "
                f"{self.own:,}"
            )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        wanted = _numbers(getattr(func, "__name__", ""), args, kwargs)
        if wanted > self.most:
            raise TooLarge(f"it needs a tensor of {wanted:,} numbers; all tensors of the file have {self.own:,}")
        return func(*args, **kwargs)


def _numbers(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """How many numbers a call is going to make, as far as its name and arguments tell; 0 where they don't."""
    values = [*args, *kwargs.values()]
    if name in _SIZED:
        lists = [each for each in values if isinstance(each, tuple | list)]
        return prod(abs(each) for each in (lists[0] if lists else values) if type(each) is int)
    whole = [each for each in values if type(each) in (int, float)]
    if name == "arange" and whole:
        first, last, step = (0, *whole, 1)[:3] if len(whole) == 1 else (*whole, 1)[:3]
        return int(min(abs((last - first) / step), 1e18)) if step else 0
    if name in ("linspace", "logspace") and whole:
        return int(kwargs.get("steps", whole[-1]))
    if name == "eye" and whole:
        return int(whole[0]) * int(whole[-1])
    tensors = [each for each in _flat(values) if isinstance(each, Tensor)]
    if name in _REPEATED:
        times = prod(each or 1 for each in _flat(values) if type(each) is int)
        return times if name.startswith("new_") else times * sum(each.numel() for each in tensors)
    if len(tensors) < 2 or (name.endswith("_") and not name.endswith("__")):
        return 0
    one, other = tensors[:2]
    if name == "outer":
        return one.numel() * other.numel()
    if name in _PRODUCTS and one.ndim and other.ndim:
        columns = other.shape[0] if name == "linear" else other.shape[-1] if other.ndim > 1 else 1
        return one.numel() // max(1, one.shape[-1]) * columns
    try:
        return prod(torch.broadcast_shapes(one.shape, other.shape))
    except RuntimeError:  # not an operation that broadcasts, or one that will say so itself
        return 0


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for each in values:
        if isinstance(each, tuple | list):
            yield from _flat(each)
        else:
            yield each


def numbers_in(tree: Any, path: str) -> Iterator[tuple[str, int | float]]:
    """The numbers of a JSON tree with their dotted paths."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from numbers_in(value, f"{path}.{key}")
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from numbers_in(value, f"{path}[{place}]")
    elif type(tree) in (int, float):
        yield path, tree


def odd_sizes(config: Any, path: str = "config") -> str:
    """The fields of a configuration that no model is likely to have, for a message about one that cannot be built: `config.heads is 0`."""
    odd = [f"{name} is {value}" for name, value in numbers_in(config, path) if type(value) is int and value <= 0]
    return ", ".join(odd[:6])
