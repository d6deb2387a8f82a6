"""What a step takes, read off the operations that it consists of: memory, products, traffic.

Memory is counted as an allocator would count it: a storage is there from the operation that made it until nothing refers to it
any more, and the greatest sum at any moment is the peak. What autograd keeps for the backward pass, what is freed on its way, the
copies that autocast makes of weights: all of it is in there, since all of it happens.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

__all__ = [
    "BACKWARD",
    "BATCH",
    "BUFFERS",
    "FORWARD",
    "GRADIENTS",
    "LOSSES",
    "OPTIMISER",
    "PARAMETERS",
    "TRACED",
    "TWINS",
    "UPDATE",
    "WEIGHT_COPIES",
    "Meter",
    "Operation",
]

FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"
# What memory is for.
PARAMETERS, GRADIENTS, OPTIMISER, TWINS = "parameters", "gradients", "optimiser state", "twins and frozen parts"
BUFFERS, BATCH, LOSSES = "queues, banks and statistics", "batch", "activations: losses"
WEIGHT_COPIES = "weights in 16 bits"

TRACED = 2
"""Micro-batches of a step that are run; all are counted like them."""

aten = torch.ops.aten
# Read only those rows of their first operand that they give.
_PICKS = {aten.index, aten.gather, aten.embedding, aten.index_select, aten.slice_backward}
# Compute more of a number than reading and writing it takes, on a processor.
_FUNCTIONS = {
    getattr(aten, f"{name}{way}")
    for name in ("gelu", "silu", "sigmoid", "tanh", "exp", "log", "erf", "pow", "rsqrt", "sin", "cos", "native_layer_norm",
                 "_softmax", "_log_softmax", "native_batch_norm", "native_group_norm", "softplus", "mish", "elu")
    for way in ("", "_backward", "_backward_data")
    if hasattr(aten, f"{name}{way}")
}  # fmt: skip
# Take memory, and write nothing.
_FREE = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten.detach}


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward_flops(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


# torch's counts, and the processor's fused attention, which they leave out.
_PRODUCTS = flop_registry | {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


@dataclass(frozen=True)
class Operation:
    """One operation of a step.

    Attributes:
        name: torch's: `mm`, `gelu_backward`.
        phase: `forward`, `backward` or `update`.
        flops: of its products, two for each multiply-add; 0 where it has none.
        bytes: read and written.
        functions: numbers of which it takes an exponential, an error function, a root or the like.
        half: whether its products are of 16-bit numbers.
        times: how often it is in the step.
    """

    name: str
    phase: str
    flops: float
    bytes: float
    functions: int
    half: bool
    times: float


class Meter(TorchDispatchMode):
    """Counts whatever is computed while it is entered, of real tensors or of hollow ones.

    Args:
        block: bytes of which the allocator gives whole multiples.

    Attributes:
        phase: what the next operations belong to.
        times: how often the next operations are done in a whole step.
        label: what the memory that is taken next is for.
        live: bytes by label at present; at_peak: at the moment of the greatest sum.
        operations: in order.
    """

    def __init__(self, block: int = 64) -> None:
        super().__init__()
        self.block = block
        self.phase, self.label, self.times = FORWARD, "other", 1.0
        self.live: dict[str, int] = {}
        self.total = self.peak = self.host = 0
        self.at_peak: dict[str, int] = {}
        self.operations: list[Operation] = []
        self._stored: dict[int, tuple[str, int, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.namespace == "prim":
            return out
        made = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        label = WEIGHT_COPIES if func is aten._to_copy.default and self.label_of(args[0]) == PARAMETERS else self.label
        fresh = [each for each in made if self.holds(each, label, move=False)]
        self._count(func, args, kwargs, out, fresh)
        if fresh and self.total > self.peak:
            self.peak, self.at_peak = self.total, dict(self.live)
        return out

    def label_of(self, tensor: Tensor) -> str:
        """What its memory is for; empty where it is not counted."""
        return self._stored.get(tensor.untyped_storage()._cdata, ("",))[0]

    def holds(self, tensor: Tensor, label: str, move: bool = True) -> bool:
        """Count a tensor's memory from now on, as being for `label`.

        Args:
            move: what was counted for something else is for this now.

        Returns:
            Whether it was not counted yet.
        """
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._stored:
            if move:
                before, size, reference = self._stored[key]
                self._stored[key] = (label, size, reference)
                self.live[before] -= size
                self.live[label] = self.live.get(label, 0) + size
            return False
        size = -(-storage.nbytes() // self.block) * self.block
        self._stored[key] = (label, size, weakref.ref(storage, partial(self._gone, key)))
        self.live[label] = self.live.get(label, 0) + size
        self.total += size
        return True

    def elsewhere(self, tensor: Tensor) -> None:
        """A tensor that is here in the main memory, beside the device whose memory is counted."""
        key = tensor.untyped_storage()._cdata
        label, size, reference = self._stored.pop(key)
        self._stored[key] = (label, 0, reference)
        self.live[label] -= size
        self.total -= size
        self.host += size

    def _gone(self, key: int, reference: Any) -> None:
        label, size, _ = self._stored.pop(key)
        self.live[label] -= size
        self.total -= size

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any, fresh: list[Tensor]) -> None:
        packet = func._overloadpacket
        writes = func._schema.is_mutable
        if packet in _FREE or not (fresh or writes):  # views
            return
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        written = sum(_bytes(each) for each in fresh)
        if writes:
            for declared, value in zip(func._schema.arguments, args, strict=False):
                if declared.alias_info is not None and declared.alias_info.is_write:
                    written += sum(_bytes(each) for each in tree_leaves(value) if isinstance(each, Tensor))
        read = written if packet in _PICKS else sum(_bytes(each) for each in given)
        flops = _PRODUCTS[packet](*args, **kwargs, out_val=out) if packet in _PRODUCTS else 0
        half = any(each.dtype in (torch.bfloat16, torch.float16) for each in given)
        name = str(packet).removeprefix("aten.")
        functions = max((each.numel() for each in given), default=0) if packet in _FUNCTIONS else 0
        self.operations.append(Operation(name, self.phase, flops, read + written, functions, half, self.times))

    @contextmanager
    def parts(self, method: nn.Module, depth: int = 2) -> Iterator[None]:
        """While it is entered, memory taken in the forward pass of a part, down to `depth` dots, is labelled by its name, and
        gradients as such when they are ready."""
        handles: list[Any] = []
        stack: list[str] = []

        def enter(name: str, *_: Any) -> None:
            stack.append(self.label)
            self.label = f"activations: {name}"

        def leave(*_: Any) -> None:
            self.label = stack.pop()

        for name, part in method.named_modules():
            if name and name.count(".") < depth:
                handles.append(part.register_forward_pre_hook(partial(enter, name)))
                handles.append(part.register_forward_hook(leave, always_call=True))
        for parameter in method.parameters():
            if parameter.requires_grad:
                handles.append(parameter.register_post_accumulate_grad_hook(self._gradient))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.holds(parameter.grad, GRADIENTS)


def _bytes(tensor: Tensor) -> int:
    """Bytes that reading a tensor once moves: of one that is spread over others, what it has."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
