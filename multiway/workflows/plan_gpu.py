"""What differs when the same code runs on a GPU, for a plan that is made without one.

Hollow tensors lie on the processor, whose autocast, attention kernels and sizes of chunks differ from a GPU's. While `like_a_gpu`
is entered, code that asks a tensor where it lies is told `meta`, which is not the processor, and torch's own code the truth; attention
takes the kernels that a GPU takes; and autocast keeps in 32 bits what it keeps so on a GPU (torch's "CUDA Ops that can autocast to float32"). So a plan is
the same wherever it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from multiway.workflows.plan_fake import Known

__all__ = ["like_a_gpu"]

_ELSEWHERE, _HERE = torch.device("meta"), torch.device("cpu")
_HALF = (torch.bfloat16, torch.float16)


def _all(*names: str) -> frozenset[Any]:
    """The functions of these names, as torch has them in several places."""
    places = (torch, F, Tensor)
    return frozenset(getattr(place, name) for place in places for name in names if hasattr(place, name))


# Autocast casts their operands to 32 bits, ...
_PRECISE = _all(
    "layer_norm", "group_norm", "cross_entropy", "nll_loss", "binary_cross_entropy_with_logits", "kl_div", "l1_loss",
    "mse_loss", "smooth_l1_loss", "cosine_similarity", "normalize", "norm", "exp", "expm1", "log", "log1p", "log2", "pow",
    "rsqrt", "reciprocal", "softplus", "cdist", "dist",
)  # fmt: skip
# ... or gives their result in 32 bits, where no type was asked for.
_SUMS = _all("softmax", "log_softmax", "sum", "cumsum", "prod", "cumprod")


class _LikeGpu(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        args, kwargs = tree_map_only(torch.device, lambda each: _HERE, (args, kwargs))
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if torch.is_autocast_enabled("cpu"):
            if func in _PRECISE:
                args, kwargs = tree_map_only(Tensor, _precise, (args, kwargs))
            elif func in _SUMS and isinstance(args[0], Tensor) and args[0].dtype in _HALF:
                kwargs = {"dtype": torch.float32} | kwargs
        return func(*args, **kwargs)


def _precise(each: Tensor) -> Tensor:
    return each.float() if each.dtype in _HALF else each


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` by the kernels of a GPU: FlashAttention for 16 bits without a mask, else the memory-efficient
    one. (B, H, N, D) as there."""
    if torch.is_autocast_enabled("cpu"):
        half = torch.get_autocast_dtype("cpu")
        query, key, value = (each.to(half) for each in (query, key, value))
    if attn_mask is None and query.dtype in _HALF:
        width = query.shape[-1]
        padded = [F.pad(each, (0, -width % 8)) if width % 8 else each for each in (query, key, value)]
        found = torch.ops.aten._scaled_dot_product_flash_attention(*padded, dropout_p, is_causal, False, scale=scale)
        return found[0][..., :width]  # type: ignore[no-any-return]
    bias = None
    if attn_mask is not None:
        bias = attn_mask
        if bias.dtype == torch.bool:
            bias = torch.zeros(bias.shape, dtype=query.dtype).masked_fill_(~bias, -torch.inf)
        bias = F.pad(bias.to(query.dtype), (0, -bias.shape[-1] % 16))[
            ..., : bias.shape[-1]
        ]  # rows begin at 16 elements
        bias = bias.expand(*query.shape[:-1], key.shape[-2])
    learns = torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value))
    return torch.ops.aten._scaled_dot_product_efficient_attention(  # type: ignore[no-any-return]
        query, key, value, bias, learns, dropout_p, is_causal, scale=scale
    )[0]


def _autocast(own: Callable[..., Any]) -> Callable[..., Any]:
    """Autocast of whatever device, for tensors that lie on the processor."""

    def here(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return own("cpu", *args, **kwargs)

    return here


@contextmanager
def like_a_gpu(known: Known) -> Iterator[None]:
    """Code that runs within it, on tensors of `shapes_only`, takes the ways that it would take on a GPU."""
    place = FakeTensor.device

    def device(tensor: FakeTensor) -> torch.device:
        return place.fget(tensor) if known.inside else _ELSEWHERE  # type: ignore[attr-defined, no-any-return]

    mode, run_backward = _LikeGpu(), torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def backward(*args: Any, **kwargs: Any) -> Any:
        # A mode is left while it handles a call, which `backward` is; blocks that are recomputed in it need it again.
        with mode:
            return run_backward(*args, **kwargs)

    with (
        patch.object(FakeTensor, "device", property(device)),
        patch.object(torch, "autocast", _autocast(torch.autocast)),
        patch.object(torch.autograd, "_engine_run_backward", backward),
        mode,
    ):
        yield
