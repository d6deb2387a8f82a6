"""Memory and time of the image-text contrastive loss, in chunks and as the full matrix with `F.cross_entropy` both ways.

    python benchmarks/itc_memory.py                          16,384 pairs of 256 features: about two minutes on one core
    python benchmarks/itc_memory.py --batch 4096
    python benchmarks/itc_memory.py --batch 128 --repeats 50

Each form runs forward and backward in a process of its own; memory is the peak of its resident set less what it held before
the first call, which includes neither Python, torch nor the features. Errors are relative, in norm, to the same in float64,
computed block by block from the definition. Exit status 1 if the chunked form needs more than a tenth of the other (from
16,384 pairs on), or if its loss or a gradient is off by more than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from multiway.losses.itc import itc
from multiway.world import World

FORMS = ("full matrix", "chunked")
NAMES = ("loss", "image", "text", "scale")
SHARE, TOLERANCE, REQUIRED_FROM = 0.1, 1e-5, 16_384


def resident(field: str) -> int:
    """Bytes of this process's resident set: `VmRSS` now, `VmHWM` at its greatest.

    Where the system has no /proc, the greatest serves as both. On Linux `ru_maxrss` would not do: a process starts with
    that of the one it was forked from.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field + ":"))
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(form: str, batch: int, dimension: int, chunk: int | None, repeats: int, threads: int, out: Path) -> dict:
    """Run one form in this process; gradients go to `out`."""
    torch.set_num_threads(threads)

    def loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        if form == "chunked":
            return itc(image, text, scale, World(), chunk=chunk).loss
        logits = scale * image @ text.t()
        own = torch.arange(len(image))
        return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own))

    loss(*draw(8, dimension)).backward()  # libraries load and threads start outside the measurement
    inputs = draw(batch, dimension)
    before, seconds = resident("VmRSS"), []
    for _ in range(repeats):
        for part in inputs:
            part.grad = None
        start = time.perf_counter()
        value = loss(*inputs)
        value.backward()
        seconds.append(time.perf_counter() - start)
    peak = resident("VmHWM") - before
    gradients = [part.grad for part in inputs if part.grad is not None]
    save_file(dict(zip(NAMES, (value.detach(), *gradients), strict=True)), out)
    return {"peak": peak, "seconds": min(seconds)}


def draw(rows: int, dimension: int) -> list[Tensor]:
    """Image and text features that agree in part, as after some training, and CLIP's first scale."""
    generator = torch.Generator().manual_seed(0)
    image, other = (torch.randn(rows, dimension, generator=generator) for _ in range(2))
    features = [F.normalize(part, dim=1).requires_grad_() for part in (image, image + other)]
    return [*features, torch.tensor(1 / 0.07, requires_grad=True)]


def exact(batch: int, dimension: int, block: int = 256) -> dict[str, Tensor]:
    """Loss and gradients in float64 from the definition, sharing nothing with `multiway.losses`."""
    x, y, scale = (part.detach().double() for part in draw(batch, dimension))

    def rows(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([torch.logsumexp(scale * part @ b.t(), 1) for part in a.split(block)])

    by_row, by_column, to_x, to_y, to_scale = rows(x, y), rows(y, x), [], torch.zeros_like(y), 0.0
    for start in range(0, batch, block):
        cosine = x[start : start + block] @ y.t()
        change = (scale * cosine - by_row[start : start + block, None]).exp() + (scale * cosine - by_column).exp()
        change.diagonal(start).sub_(2)
        change /= 2 * batch
        to_x.append(scale * change @ y)
        to_y += scale * change.t() @ x[start : start + block]
        to_scale += float((change * cosine).sum())
    own = scale * (x * y).sum(1)
    loss = 0.5 * ((by_row - own).mean() + (by_column - own).mean())
    return dict(zip(NAMES, (loss, torch.cat(to_x), to_y, torch.tensor(to_scale, dtype=torch.float64)), strict=True))


def compare(batch: int, dimension: int, chunk: int | None = None, repeats: int = 1, threads: int = 1) -> dict:
    """Both forms, each in a fresh process: `peak` in bytes, `seconds`, and relative `error` of what it gives, by name."""
    found = {}
    torch.set_num_threads(threads)
    truth = exact(batch, dimension)
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            out = Path(folder) / "tensors.safetensors"
            options = [form, batch, dimension, json.dumps(chunk), repeats, threads, out]
            command = [sys.executable, str(Path(__file__).resolve()), "--measure", *map(str, options)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{form} failed: {done.stderr.strip()[-400:] or 'killed; too little memory?'}")
            got = load_file(out)
            found[form] = json.loads(done.stdout)
            found[form]["error"] = {
                name: float((got[name].double() - value).norm() / value.norm()) for name, value in truth.items()
            }
    return found


def main() -> int:
    if sys.argv[1:2] == ["--measure"]:
        form, batch, dimension, chunk, repeats, threads, out = sys.argv[2:]
        found = measure(form, int(batch), int(dimension), json.loads(chunk), int(repeats), int(threads), Path(out))
        print(json.dumps(found))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16_384)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--chunk", type=int, help="rows held at once; chosen by size if not given")
    parser.add_argument("--repeats", type=int, default=1, help="the fastest counts")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    found = compare(**vars(options))
    print(
        f"ITC forward and backward, {options.batch:,} pairs of {options.dimension} features, float32, {options.threads} thread(s)\n"
    )
    print(f"{'form':12} {'peak MiB':>10} {'ms':>10}   relative error: " + " ".join(f"{name:>8}" for name in NAMES))
    for form in FORMS:
        row = found[form]
        errors = " ".join(f"{row['error'][name]:8.1e}" for name in NAMES)
        print(f"{form:12} {row['peak'] / 2**20:10.1f} {row['seconds'] * 1e3:10.1f}   {'':15} {errors}")
    full, chunked = (found[form] for form in FORMS)
    memory = chunked["peak"] / max(full["peak"], 1)
    print(f"\nchunked / full: memory {memory:.4f}, time {chunked['seconds'] / full['seconds']:.2f}")
    wrong = max(chunked["error"].values()) > TOLERANCE
    large = options.batch >= REQUIRED_FROM and memory > SHARE
    if wrong or large:
        print(f"FAILED: {'results are off' if wrong else f'more than {SHARE:.0%} of the memory'}")
    return int(wrong or large)


if __name__ == "__main__":
    sys.exit(main())
