"""Which device a run uses, and whether bf16 pays on it."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]

__all__ = ["DeviceError", "Precision", "choose_device", "choose_precision", "has_fast_bf16"]


class DeviceError(ValueError):
    """A device that is not there."""


def choose_device(name: str, rank: int = 0) -> torch.device:
    """`auto` is the GPU of this rank where there is one.

    Raises:
        DeviceError: for a name that is none, or a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"device {name} was asked for, but torch sees no GPU; use --device cpu")
    if name == "cuda":
        return torch.device("cuda", rank % torch.cuda.device_count())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"there is no device {name!r}; expected auto, cpu, cuda or cuda:NUMBER") from error
    if device.type == "cuda" and device.index >= torch.cuda.device_count():
        raise DeviceError(
            f"device {name} was asked for, but the GPUs are cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        )
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """True where bf16 matrix products have hardware of their own; elsewhere autocast only adds casts."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Not in every supported torch; without it bf16 is left to those who ask for it.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def choose_precision(name: Precision, device: torch.device) -> Precision:
    """`auto` is bf16 where it is fast, else fp32."""
    if name != "auto":
        return name
    return "bf16" if has_fast_bf16(device) else "fp32"
