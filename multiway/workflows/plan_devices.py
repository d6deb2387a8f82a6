"""What accelerators can do: by their vendors' data sheets, or as measured on the device that is here.

Rates of data sheets are those of dense products, without the factor of two for 2:4 sparsity that sheets like to print. They are
bounds. A training step's products reach `EFFICIENCY` of the matrix rate, and what is bound by memory `BANDWIDTH_EFFICIENCY` of the
bandwidth: round figures for large transformers on GPUs, to be replaced by a measured rate where one is at hand.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from multiway.engine.device import choose_device, has_fast_bf16
from multiway.workflows.plan_meter import Operation

__all__ = ["ACCELERATORS", "Accelerator", "PlanError", "accelerator", "measure"]

EFFICIENCY, BANDWIDTH_EFFICIENCY = 0.6, 0.8
MEASURED_EFFICIENCY = 0.85  # of a product that was measured: a step's are smaller, and less square
GIB = 2**30


class PlanError(ValueError):
    """Something that no plan can be made of."""


@dataclass(frozen=True)
class Accelerator:
    """One device.

    Attributes:
        name: as on the command line.
        memory: bytes. Vendors' GB are GiB here, as what `nvidia-smi` shows comes to within a few percent.
        half, full: dense products per second, in FLOP/s, of bfloat16 and of float32 (torch's default, without TF32).
        bandwidth: of the memory, bytes per second.
        batched: FLOP/s of many small products at once, of bfloat16 and of float32, as far as they are slower than large ones.
        functions: exponentials, error functions and the like per second, of which a GPU computes more than its memory can bring.
        link: bytes per second that one device sends to others of its node, one way.
        overhead: seconds that the host takes to start one operation.
        efficiency, bandwidth_efficiency: share of these rates that a step reaches.
        source: where the figures are from.
        gpu: whether operations are queued, so that the host's overhead is hidden behind the device's work, and code takes a GPU's ways.
    """

    name: str
    memory: float
    half: float
    full: float
    bandwidth: float
    link: float
    source: str
    overhead: float = 6e-6
    efficiency: float = EFFICIENCY
    bandwidth_efficiency: float = BANDWIDTH_EFFICIENCY
    gpu: bool = True
    batched: tuple[float, float] = (math.inf, math.inf)
    functions: float = math.inf

    def rate(self, half: bool, batched: bool = False) -> float:
        """FLOP/s that products reach."""
        whole = self.efficiency * (self.half if half else self.full)
        return min(whole, self.batched[not half]) if batched else whole

    @property
    def traffic(self) -> float:
        """Bytes per second that what is bound by memory reaches."""
        return self.bandwidth_efficiency * self.bandwidth

    def seconds(self, operation: Operation) -> float:
        """Of one operation: whatever of it takes longest. How it is started is not in it."""
        products = operation.flops / self.rate(operation.half, operation.name in ("bmm", "baddbmm"))
        return max(products, operation.bytes / self.traffic, operation.functions / self.functions)


def _of(name: str, memory: float, half: float, full: float, bandwidth: float, link: float, source: str) -> Accelerator:
    """From GiB, TFLOP/s, TFLOP/s, GB/s and GB/s."""
    return Accelerator(name, memory * GIB, half * 1e12, full * 1e12, bandwidth * 1e9, link * 1e9, source)


_A100 = "NVIDIA A100 Tensor Core GPU data sheet, SXM"
_H100 = "NVIDIA H100 Tensor Core GPU data sheet, SXM; 1,979 with sparsity"

ACCELERATORS: dict[str, Accelerator] = {
    each.name: each
    for each in (
        # NVLink's figure is the sum of both directions: half of it goes out. So is PCIe's 64 GB/s of 16 lanes of generation 4.
        _of("a100-40", 40, 312, 19.5, 1555, 300, _A100),
        _of("a100-80", 80, 312, 19.5, 2039, 300, _A100),
        _of("h100", 80, 989.5, 67, 3350, 450, _H100),
        _of("h200", 141, 989.5, 67, 4800, 450, "NVIDIA H200 Tensor Core GPU data sheet, SXM; 1,979 with sparsity"),
        _of("b200", 179, 2250, 80, 8000, 900, "NVIDIA Blackwell architecture technical brief, HGX B200; 4,500 with sparsity"),
        _of("l4", 22.5, 121, 30.3, 300, 32, "NVIDIA L4 data sheet; 242 with sparsity; 24 GB less what error correction takes"),
        # No bfloat16: torch emulates it, and products are float32's.
        _of("t4", 15, 8.1, 8.1, 320, 16, "NVIDIA T4 data sheet; 65 of float16, which is not used here; 16 GB less error correction"),
        _of("rtx4090", 24, 165.2, 82.6, 1008, 32, "NVIDIA Ada GPU architecture white paper, appendix A, FP32 accumulate; PCIe 4.0"),
        _of("mi300x", 192, 1307.4, 163.4, 5300, 448, "AMD Instinct MI300X data sheet; 7 links of 128 GB/s, both ways together"),
    )
}  # fmt: skip


def accelerator(name: str, tflops: float = 0.0, memory: float = 0.0) -> Accelerator:
    """An accelerator by its name; `this` is the GPU that is here, or the processor, measured; `cpu` the processor, measured.

    Args:
        tflops: a measured rate of products in TFLOP/s, which then is what is reached; 0 for the data sheet's and its share.
        memory: GiB, if not the device's.

    Raises:
        PlanError: for an unknown name, or figures below 0.
    """
    if tflops < 0 or memory < 0:
        raise PlanError(f"--measured-rate {tflops:g} and --memory {memory:g}; expected TFLOP/s and GiB above 0")
    if name in ("this", "cpu"):
        found = measure(choose_device("cpu" if name == "cpu" else "auto"))
    elif name in ACCELERATORS:
        found = ACCELERATORS[name]
    else:
        raise PlanError(
            f"--gpu {name}: there are {', '.join(ACCELERATORS)}; `this` and `cpu` measure the device that is here"
        )
    if tflops:
        given = f"{found.source}; products at {tflops:g} TFLOP/s as given"
        found = replace(found, half=tflops * 1e12, full=tflops * 1e12, efficiency=1.0, source=given)
    return replace(found, memory=memory * GIB) if memory else found


def measure(device: torch.device, sizes: tuple[int, ...] = ()) -> Accelerator:
    """The rates of a device that is here: products of square matrices, a copy, and the start of an operation; of a processor, whose
    steps consist of more that is slow, small products and functions too.

    Args:
        sizes: of the matrices; by default 1,024 and 2,048, on a GPU 4,096 as well.
    """
    gpu = device.type == "cuda"
    sizes = sizes or ((1024, 2048, 4096) if gpu else (1024, 2048))
    rates = {dtype: max(_products(size, dtype, device) for size in sizes) for dtype in (torch.bfloat16, torch.float32)}
    # Far more than caches hold. A copy takes new memory, as results do: on a processor its pages are to be had first.
    block = torch.ones(2**28 if gpu else 2**22, device=device)
    copied = 2 * block.numel() * block.element_size() / _seconds(block.clone, device, rounds=15)
    few = torch.ones(16, device=device)
    overhead = _seconds(lambda: [few.add(1.0) for _ in range(200)], device) / 200
    if gpu:
        described = torch.cuda.get_device_properties(device)
        name, memory = described.name, float(described.total_memory)
    else:
        name, memory = f"this processor, {torch.get_num_threads()} threads", _main_memory()
    half = rates[torch.bfloat16] if has_fast_bf16(device) else rates[torch.float32]
    found = Accelerator(
        name, memory, half, rates[torch.float32], copied, _LINK_HERE, f"measured: products of {sizes[-1]} and a copy",
        overhead, MEASURED_EFFICIENCY, 1.0, gpu,
    )  # fmt: skip
    if gpu:
        return found
    small = [_products(_SMALL, dtype, device, _MANY) for dtype in (torch.bfloat16, torch.float32)]
    # Attention over a few tokens and an activation, there and back.
    numbers = torch.randn(2**15, 64, dtype=torch.bfloat16 if has_fast_bf16(device) else torch.float32)

    def compute() -> None:
        weights = torch.softmax(numbers, -1)
        torch.ops.aten._softmax_backward_data(numbers, weights, -1, weights.dtype)
        torch.ops.aten.gelu_backward(numbers, torch.nn.functional.gelu(numbers))

    functions = 4 * numbers.numel() / _seconds(compute, device)
    return replace(found, batched=(small[0] if has_fast_bf16(device) else small[1], small[1]), functions=functions)


_SMALL, _MANY = 32, 512  # sides, and number, of matrices like those of attention over a few patches
_LINK_HERE = 32e9  # PCIe 4.0, 16 lanes: what a device that is measured is taken to be linked by


def _products(size: int, dtype: torch.dtype, device: torch.device, many: int = 1) -> float:
    """FLOP/s of a product, or of many at once."""
    shape = (size, size) if many == 1 else (many, size, size)
    left, right = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    return float(many * 2 * size**3 / _seconds(lambda: left @ right, device))


def _seconds(work: Callable[[], object], device: torch.device, rounds: int = 5) -> float:
    """The median of a few rounds, after one that warms up."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def _main_memory() -> float:
    """Bytes of this machine, or of what a container may use of it."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:  # noqa: PTH123
            said = file.read().strip()
    except OSError:
        return total
    return min(total, float(said)) if said.isdigit() else total
