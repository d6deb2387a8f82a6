"""Written-out against fused attention on the device at hand: what `choose_kernel` in `multiway/nn/attention.py` rests on.

    python benchmarks/attention.py                    the whole grid, about two minutes on one CPU core
    python benchmarks/attention.py --quick            short lengths only
    python benchmarks/attention.py --device cuda

Prints milliseconds of the forward pass alone (without gradient) and of forward and backward together, as the median of
repeated runs, and which form `choose_kernel` takes; a `!` marks a choice that cost more than 15 %.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from multiway.nn.attention import ALL_VISIBLE, Kernel, Visibility, attend, choose_kernel

LENGTHS = {16: 256, 50: 64, 64: 64, 128: 32, 197: 16, 256: 16, 512: 4, 1024: 2}  # tokens -> batch


def milliseconds(run: Callable[[], object], device: torch.device, seconds: float = 0.4) -> float:
    """Median time of `run`, after one call that warms up."""

    def once() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    first = once()
    return 1000 * statistics.median([first, *(once() for _ in range(max(4, int(seconds / first))))])


def measure(
    length: int, batch: int, dtype: torch.dtype, kernel: Kernel, *, backward: bool, causal: bool, device: torch.device
) -> float:
    """Milliseconds for 2 heads of 64, queries, keys and values being views of one merged projection, as in a block."""
    merged = torch.randn(batch, length, 3 * 128, device=device, dtype=dtype, requires_grad=backward)
    gradient = torch.randn(batch, 2, length, 64, device=device, dtype=dtype)
    visibility = Visibility.of(None, length, device, causal=True) if causal else ALL_VISIBLE

    def run() -> None:
        query, key, value = merged.view(batch, length, 3, 2, 64).permute(2, 0, 3, 1, 4).unbind(0)
        mixed, _ = attend(query, key, value, visibility, kernel=kernel)
        if backward:
            merged.grad = None
            mixed.backward(gradient)

    with torch.set_grad_enabled(backward):
        return milliseconds(run, device)


def main() -> None:
    """Measure the grid and print a table."""
    parser = argparse.ArgumentParser(description="Written-out against fused attention.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="lengths up to 128")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{arguments.threads} CPU thread(s)"
    print(f"{name}, torch {torch.__version__}, 2 heads of 64")
    print(
        f"{'tokens':>6} {'batch':>5} {'dtype':>8} {'mask':>6} {'pass':>8} {'written':>9} {'fused':>9}  faster   chosen"
    )
    for length, batch in LENGTHS.items():
        if arguments.quick and length > 128:
            continue
        for dtype in (torch.float32, torch.bfloat16):
            for causal in (False, True):
                for backward in (False, True):
                    times: dict[Kernel, float] = {
                        kernel: measure(length, batch, dtype, kernel, backward=backward, causal=causal, device=device)
                        for kernel in ("written", "fused")
                    }
                    faster = min(times, key=lambda kernel: times[kernel])
                    query = torch.empty(batch, 2, length, 64, device=device, dtype=dtype)
                    chosen = choose_kernel(query, length, backward=backward)
                    mark = "!" if times[chosen] > 1.15 * times[faster] else ""
                    print(
                        f"{length:>6} {batch:>5} {str(dtype)[6:]:>8} {'causal' if causal else '-':>6} "
                        f"{'fwd+bwd' if backward else 'forward':>8} {times['written']:>9.2f} {times['fused']:>9.2f}  "
                        f"{faster:<8} {chosen}{mark}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
