"""Time and peak memory of one step of CLIP on a large batch: all rows at once, and with gradient caching.

    python benchmarks/gradient_cache.py                            4,096 pairs in micro-batches of 256, CLIP at `tiny`
    python benchmarks/gradient_cache.py --batch 512 --cache 64     a minute on one core
    python benchmarks/gradient_cache.py --batch 32768 --only cached --precision bf16 --repeats 0
    python benchmarks/gradient_cache.py --preset vit-b-16 --device cuda --precision bf16 --batch 4096 --cache 256

Each form takes its steps in a process of its own. Memory is, on a GPU, the most that was allocated; on the processor the peak of
the resident set less what it held before the first step, weights and the batch as it left the loader among it. Time is that of the
fastest step after the first, or with `--repeats 0` of the first. The gradients of both are compared, in norm; the plain form may not fit where the other does, which is
said and is no failure. Exit status 1 if they differ by more than 1e-4 in fp32, 0.05 in bf16.
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
from itc_memory import resident
from safetensors.torch import load_file, save_file

from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.data.augment import finish
from multiway.engine.cached import CachedStep
from multiway.engine.settings import Settings
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.method import Step
from multiway.world import World

FORMS = ("plain", "cached")
WORDS = 32
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05}


def draw(rows: int, size: int, vocabulary: int) -> Batch:
    """Random pictures as they leave the loader, and random texts of the same length."""
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (rows, 3, size, size), dtype=torch.uint8, generator=generator),
        text=torch.randint(4, vocabulary, (rows, WORDS), generator=generator),
        text_mask=torch.ones(rows, WORDS, dtype=torch.bool),
        image_id=torch.arange(rows),
        text_id=torch.arange(rows),
        sample_index=torch.arange(rows),
    )


def measure(form: str, options: argparse.Namespace) -> dict[str, float | str]:
    """Steps of one form in this process; the last one's gradients go to `options.out`."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device, autocast = torch.device(options.device), options.precision == "bf16"
    config = ClipConfig.preset(options.preset).resolve(DataInfo(vocabulary=8192, context=WORDS, special={"pad": 0}))
    method, view = Clip(config).to(device).train(), ViewSpec(size=config.image.size)
    said: list[str] = []
    settings = Settings(steps=1, batch=options.batch, lr=1e-3, cache=options.cache)
    cached = CachedStep(method, settings, World(), said.append)

    def step(rows: Batch) -> None:
        method.zero_grad()
        if form == "cached":
            cached(rows, lambda part: finish(part, view), Step(), autocast)
            return
        ready = finish(rows.to(device), view)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            total = method.training_step(ready, World(), Step()).total
        total.backward()

    batch = draw(options.batch, view.size, config.text.vocabulary)
    method.training_step(finish(batch.rows(0, 8).to(device), view), World(), Step()).total.backward()  # libraries load
    before, seconds = resident("VmRSS"), []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(options.repeats + 1):
        began = time.perf_counter()
        step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    save_file({name: p.grad.float().cpu() for name, p in method.named_parameters() if p.grad is not None}, options.out)
    peak = on_device if on_device else resident("VmHWM") - before
    return {"peak": peak, "seconds": min(seconds[1:] or seconds), "said": said[0] if form == "cached" else ""}


def compare(options: argparse.Namespace) -> int:
    """Both forms in processes of their own, as a table."""
    found, gradients = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for form in options.only or FORMS:
            out = str(Path(folder) / f"{form}.safetensors")
            command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--measure", form, "--out", out]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode and form == "cached":
                raise RuntimeError(f"{form} failed: {done.stderr.strip()[-400:] or 'killed; too little memory?'}")
            if done.returncode:
                print(f"{form}: did not get through: {(done.stderr.strip() or 'killed').splitlines()[-1][:160]}")
                continue
            found[form], gradients[form] = json.loads(done.stdout), load_file(out)
    print(
        f"CLIP {options.preset}, {options.batch:,} pairs, micro-batches of {options.cache}, {options.precision}, {options.device}"
    )
    if "cached" in found:
        print(found["cached"]["said"] + "\n")
    print(f"{'form':8} {'peak MiB':>10} {'s':>8}")
    for form, row in found.items():
        print(f"{form:8} {row['peak'] / 2**20:10.1f} {row['seconds']:8.2f}")
    if len(found) < len(FORMS):
        return 0
    memory, slower = (found["cached"][key] / max(found["plain"][key], 1e-9) for key in ("peak", "seconds"))
    whole = torch.cat([each.flatten() for each in gradients["plain"].values()])
    error = float(
        (torch.cat([gradients["cached"][n].flatten() for n in gradients["plain"]]) - whole).norm() / whole.norm()
    )
    print(f"\ncached / plain: memory {memory:.3f}, time {slower:.2f}; gradients differ by {error:.1e}")
    if error > TOLERANCE[options.precision]:
        print("FAILED: the gradients are not the same")
    return int(error > TOLERANCE[options.precision])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--cache", type=int, default=256)
    parser.add_argument("--preset", default="tiny", help="of CLIP")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=2, help="steps after the first; the fastest counts")
    parser.add_argument("--only", nargs="+", choices=FORMS, help="not both forms")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options)))
        return 0
    return compare(options)


if __name__ == "__main__":
    sys.exit(main())
