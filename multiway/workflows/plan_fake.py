"""Shapes without memory: a method's real code is run, on tensors that hold nothing.

Under torch's `FakeTensorMode` every operation works out shape, type and place of its result and computes no number. That is not
enough for methods: which rows a mask takes, how long the longest text is, how many pictures of a batch differ are *values*. So
here small tensors are computed beside their fake ones, as far as all that goes into them is known: ids, masks, places, draws.
What comes of weights or pixels is not known. Where the shape of a result depends on it after all, something is assumed, and kept
in `assumed`: a mask that is not known takes all, a draw by weights that are not known is even, a number is 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["Known", "fake_values", "forget", "hollow", "real", "shapes_only", "uninitialised"]

LIMIT = 2**22
"""Elements above which a tensor's values are not computed."""

aten = torch.ops.aten
_UNIQUE = (aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default)
_ALL = "masks that depend on weights or pixels take all"


@contextmanager
def shapes_only() -> Iterator[Known]:
    """Within it, tensors that are made hold nothing, but for what `Known` knows."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, Known(mode) as known:
        yield known


@contextmanager
def uninitialised() -> Iterator[None]:
    """While a method is built: torch's initialisations leave tensors as they are, since there is nothing to fill, and hollow tensors
    can be copied with the module that they belong to, which torch cannot do."""
    with ExitStack() as stack:
        for name in dir(nn.init):
            if name.endswith("_") and not name.startswith("_"):
                stack.enter_context(patch.object(nn.init, name, _as_it_is))
        stack.enter_context(_Copies())
        yield


class _Copies(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__:
            own, memo = args
            copied = own.detach().clone()
            return memo.setdefault(
                id(own), nn.Parameter(copied, own.requires_grad) if isinstance(own, nn.Parameter) else copied
            )
        return func(*args, **(kwargs or {}))


@contextmanager
def real() -> Iterator[None]:
    """Within `shapes_only`, work that has to see numbers: what is made here holds them."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def _as_it_is(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return tensor


def forget(value: Tensor) -> None:
    """From here on a tensor's values are not known, nor those of what shares its memory."""
    if isinstance(value, FakeTensor):
        value.untyped_storage().unknown = True  # type: ignore[attr-defined]


def fake_values(mode: FakeTensorMode, value: Tensor) -> Tensor:
    """A fake tensor like a real one, whose values are known where they are few."""
    with unset_fake_temporarily():
        own = mode.from_tensor(value, static_shapes=True)
    if value.numel() <= LIMIT:
        own.known = value  # type: ignore[attr-defined]
    return own


def hollow(module: nn.Module, known: Known) -> None:
    """Make a module's parameters and buffers fake that still are real, and forget the values of all parameters."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and not isinstance(parameter, FakeTensor):
                own = fake_values(known.mode, parameter.detach())
                part._parameters[name] = nn.Parameter(own, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None and not isinstance(buffer, FakeTensor):
                part._buffers[name] = fake_values(known.mode, buffer)
    for each in module.parameters():
        forget(each)


class Known(TorchDispatchMode):
    """Beside a `FakeTensorMode`, which is entered before it: values of small tensors.

    Attributes:
        mode: that one.
        assumed: what was taken for granted, and how often.
        inside: whether an operation is being worked out, by torch's code rather than a method's.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode
        self.assumed: dict[str, int] = {}
        self.inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # asked for far more often than anything is computed
            return args[0].fake_device
        before, self.inside = self.inside, True
        try:
            return self._work_out(func, args, kwargs or {})
        finally:
            self.inside = before

    def _work_out(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result's shape, and its values where they can be known."""
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        complete = all(_value(each) is not None for each in given)
        if func is aten.index.Tensor or func in (aten.index_put.default, aten.index_put_.default):
            args = (args[0], [place for each in args[1] for place in self._places(each)], *args[2:])
        try:
            if func is aten._local_scalar_dense.default:  # torch knows some constants by itself; all or none are ours
                raise DataDependentOutputException(func)
            out = func(*args, **kwargs)
        except (DynamicOutputShapeException, DataDependentOutputException):
            return self._depends(func, args, kwargs, complete)
        if complete and all(each.numel() <= LIMIT for each in tree_leaves(out) if isinstance(each, Tensor)):
            self._keep(func, args, kwargs, out)
        else:
            _written(func, args, kwargs)
            if func is aten.multinomial.default:
                self._assume("draws by weights that are not known are even")
                with unset_fake_temporarily():
                    out.known = torch.randint(args[0].shape[-1], out.shape)
        return out

    def _keep(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Compute the values beside a fake result."""
        try:
            values = tree_leaves(self._really(func, args, kwargs))
        except NotImplementedError:  # a GPU's own kernel
            return
        for own, value in zip(tree_leaves(out), values, strict=True):
            if isinstance(own, FakeTensor):
                own.known = value  # type: ignore[attr-defined]

    def _really(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operation on values."""
        args, kwargs = tree_map_only(Tensor, _value, (args, kwargs))
        if kwargs.get("device") is not None:
            kwargs = kwargs | {"device": torch.device("cpu")}
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    def _depends(self, func: Any, args: Any, kwargs: Any, complete: bool) -> Any:
        """An operation whose result, or its shape, depends on values."""
        if complete:
            real = self._really(func, args, kwargs)
            return tree_map_only(Tensor, lambda each: fake_values(self.mode, each), real)
        own = args[0]
        if func is aten._local_scalar_dense.default:
            self._assume("numbers that depend on weights or pixels are 1")
            return True if own.dtype == torch.bool else 1.0 if own.dtype.is_floating_point else 1
        if func is aten.nonzero.default:
            return torch.stack(self._places(torch.ones_like(own, dtype=torch.bool)), 1)
        if func is aten.masked_select.default:
            self._assume(_ALL)
            return own.expand(torch.broadcast_shapes(own.shape, args[1].shape)).flatten()
        if func in _UNIQUE:
            self._assume("things that depend on weights or pixels all differ")
            with unset_fake_temporarily():
                numbers = torch.arange(own.shape[0] if func is aten.unique_dim.default else own.numel())
            found = own.clone() if func is aten.unique_dim.default else own.flatten()
            return found, fake_values(self.mode, numbers), fake_values(self.mode, torch.ones_like(numbers))
        if func is aten.bincount.default:
            weights, length = (*args[1:], None, 0)[:2] if len(args) > 1 else (None, 0)
            self._assume("numbers to be counted lie in the range that is asked for")
            return torch.zeros(kwargs.get("minlength", length), dtype=torch.int64 if weights is None else weights.dtype)
        raise RuntimeError(f"the shape of what {func} gives depends on values that are not known without running it")

    def _places(self, index: Any) -> tuple[Any, ...]:
        """What indexes like `index`, without masks, which torch's fake indexing knows nothing of."""
        if not isinstance(index, Tensor) or index.dtype not in (torch.bool, torch.uint8):
            return (index,)
        value = _value(index)
        if value is None:
            self._assume(_ALL)
        with unset_fake_temporarily():
            mask = torch.ones(index.shape, dtype=torch.bool) if value is None else value
            places = mask.nonzero(as_tuple=True)
        return tuple(fake_values(self.mode, each) for each in places)

    def _assume(self, what: str) -> None:
        self.assumed[what] = self.assumed.get(what, 0) + 1


def _value(each: Tensor) -> Tensor | None:
    """The values of a tensor, where they are known; of one that is no fake, itself."""
    if not isinstance(each, FakeTensor):
        return each if each.numel() <= LIMIT and each.device.type == "cpu" else None
    found: Tensor | None = getattr(each, "known", None)
    return None if found is None or hasattr(each.untyped_storage(), "unknown") else found


def _written(func: Any, args: Any, kwargs: Any) -> None:
    """Forget what an operation writes without all that goes into it being known."""
    if not func._schema.is_mutable:
        return
    for place, declared in enumerate(func._schema.arguments):
        if declared.alias_info is None or not declared.alias_info.is_write:
            continue
        target = args[place] if place < len(args) else kwargs.get(declared.name)
        for each in tree_leaves(target):
            if isinstance(each, Tensor):
                forget(each)
