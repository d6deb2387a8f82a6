"""All contests in one command, and whether anything has become slower: what `make bench` and `make bench-check` call.

    python benchmarks/run.py                                     every contest that can be held here
    python benchmarks/run.py --only clip blip steps/albef        some of them, or single figures
    python benchmarks/run.py --quick                             fewer rounds
    python benchmarks/run.py --json report.json
    python benchmarks/run.py --check benchmarks/baseline.json    exit status 1, and a table, if a figure fell
    python benchmarks/run.py --repeats 3 --write-baseline benchmarks/baseline.json

One thread, in processor time, so that other work on the machine costs a figure little; a step's products are of bf16 where the machine
has it. What a figure is, how a baseline comes about and when a figure has fallen: `results.py`. A figure that fell is measured again,
and counts if it falls again. Peers that are not installed are left out by name (`make peers`).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import augmentation
import method_steps
import peer_steps
import retrieval_scale
import torch
from contest import Contender, interval, race
from peer_entry import installed
from results import Fall, Result, baseline, falls, read_baseline, table, to_json, unmeasured

from multiway.engine.allocator import keep_freed_memory

HERE = Path(__file__).parent
SCRIPTS = {"loader": "decode.py", "checkpoint": "checkpoint_stall.py"}
"""Contests that are commands of their own, with processes and disks in them: their output is shown, and is not checked."""


class LeftOut(Exception):
    """Why a contest cannot be held here."""


@dataclass(frozen=True)
class Asked:
    """What every contest is told.

    Attributes:
        rounds: turns of each contender.
        wanted: names of contests or of single figures; empty for all.
        quick: smaller batches where that is much faster.
    """

    rounds: int
    wanted: tuple[str, ...] = ()
    quick: bool = False

    def wants(self, name: str) -> bool:
        """Whether a figure was asked for, by its name, or that of its contest."""
        return not self.wanted or any(name == each or name.startswith(f"{each}/") for each in self.wanted)

    def holds(self, contest: str) -> bool:
        """Whether any figure of a contest may have been asked for."""
        return not self.wanted or any(each.split("/")[0] == contest for each in self.wanted)


Contest = Callable[[Asked], Iterator[Result]]


def against(name: str, contenders: list[Contender], peer: str, own: str, rounds: int, **also: Any) -> Result:
    """How many times as long the peer takes."""
    times = race(contenders, rounds, 1, time.process_time)
    ratios = times.ratios(peer, own)
    milliseconds = {f"{each} ms": 1000 * times.median(each) for each in (peer, own)}
    return Result(name, "ratio", times.ratio(peer, own), *interval(ratios), rounds, milliseconds | also)


def steps(asked: Asked) -> Iterator[Result]:
    """The share of the matrix rate that each recipe's training step reaches, ours alone."""
    with method_steps.shelf() as recipes:
        for recipe in method_steps.NAMES:
            if not asked.wants(f"steps/{recipe}"):
                continue
            made = method_steps.method_step(recipes.recipe(recipe, 32 if asked.quick else method_steps.ROWS))
            own, rows = made.contender, len(made.batch)
            times = race([own], asked.rounds, 1, time.process_time)
            shares = [made.flops / seconds / times.rates[own.precision] for seconds in times.seconds[own.name]]
            also = {
                "rows/s": rows / times.median(own.name),
                "GFLOP a row": made.flops / rows / 1e9,
                "in": own.precision,
            }
            middle = made.flops / times.median(own.name) / times.rates[own.precision]
            yield Result(f"steps/{recipe}", "share", middle, *interval(shares), asked.rounds, also)


def clip(asked: Asked) -> Iterator[Result]:
    """CLIP beside transformers, whose optimiser is torch's default, unfused, as its users have it."""
    import clip_step

    taking = clip_step.contenders()
    times = race(taking, asked.rounds, 1, time.process_time)
    pairs = {
        "bf16": ("transformers, bf16 autocast", "multiway, auto"),
        "fp32": ("transformers, default", "multiway, fp32"),
    }
    for precision, beginnings in pairs.items():
        peer, own = (next(each.name for each in taking if each.name.startswith(start)) for start in beginnings)
        also = {"peer ms": 1000 * times.median(peer), "ours ms": 1000 * times.median(own)}
        yield Result(
            f"clip/{precision}", "ratio", times.ratio(peer, own), *interval(times.ratios(peer, own)), asked.rounds, also
        )


def of_peer_steps(name: str) -> Contest:
    """A contest of `peer_steps.py`: ours beside the peer in either precision, fused optimisers on both sides."""

    def hold(asked: Asked) -> Iterator[Result]:
        record = peer_steps.hold(name, "tiny", asked.rounds, 1, clock=time.process_time)
        if "left_out" in record:
            raise LeftOut(record["left_out"])
        rows = {row["contender"]: row for row in record["rows"]}
        for precision in ("bf16", "fp32"):
            own, peer = rows[f"ours, {precision}"], rows[f"peer, {precision}"]
            also = {
                "peer ms": peer["milliseconds"],
                "ours ms": own["milliseconds"],
                "MFU": own["mfu"],
                "peer's MFU": peer["mfu"],
            }
            yield Result(f"{name}/{precision}", "ratio", own["peer_over_it"], *own["interval"], asked.rounds, also)

    return hold


def lightly(asked: Asked) -> Iterator[Result]:
    """Self-supervised methods beside the same built from lightly's parts, views included."""
    if not installed("lightly"):
        raise LeftOut("lightly is not installed; `make peers` makes an environment that has it")
    import view_steps

    rows = view_steps.SIZES["tiny"][2]
    for name, entry in view_steps.ENTRIES.items():
        if not asked.wants(f"lightly/{name}"):
            continue
        contenders = view_steps.enter(entry("tiny"), rows, "bf16", with_views=True, plain=False)
        yield against(f"lightly/{name}", contenders, "lightly bf16", "ours bf16", asked.rounds)


def views(asked: Asked) -> Iterator[Result]:
    """SimCLR's views by batched tensor code, beside a chain of Pillow operations."""
    for size in augmentation.SIZES:
        if asked.wants(f"views/{size}"):
            yield against(f"views/{size}", augmentation.contenders(size), "pillow", "ours", asked.rounds)


def retrieval(asked: Asked) -> Iterator[Result]:
    """Ranks of 1,000 pictures and 5,000 texts both ways, beside the k best of every row for R@1, R@5 and R@10."""
    yield against("retrieval/1k", retrieval_scale.contenders(), "peer", "ours", asked.rounds)


CONTESTS: dict[str, Contest] = {
    "steps": steps,
    "clip": clip,
    **{name: of_peer_steps(name) for name in peer_steps.CONTESTS},
    "lightly": lightly,
    "views": views,
    "retrieval": retrieval,
}


def measure(asked: Asked) -> list[Result]:
    """Every contest that was asked for and can be held, printed as it ends."""
    found: list[Result] = []
    for name, contest in CONTESTS.items():
        if not asked.holds(name):
            continue
        torch.manual_seed(0)
        try:
            results = [result for result in contest(asked) if asked.wants(result.name)]
        except LeftOut as why:
            print(f"{name}: left out: {why}", flush=True)
            continue
        print(table(results), flush=True)
        found += results
    return found


def about() -> dict[str, Any]:
    """Where and with what a report was made."""
    versions = {}
    for package in ("torch", "transformers", "open_clip_torch", "lightly", "pillow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line] \
        if Path("/proc/cpuinfo").exists() else [platform.processor()]  # fmt: skip
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    fast = [each for each in ("avx512_bf16", "amx_bf16") if capabilities.get(each)]
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"machine": f"{names[0]}, {', '.join(fast) or 'no fast bf16'}", "threads": torch.get_num_threads(), "date": date,
            "versions": versions}  # fmt: skip


def check(results: list[Result], path: Path, asked: Asked) -> int:
    """Hold the results against a baseline; what fell is measured once more. The exit status."""
    stored = read_baseline(path)
    absent, new = unmeasured(results, stored)
    fallen = falls(results, stored)
    if fallen:
        print(f"\n{len(fallen)} below the baseline; measured again:", flush=True)
        again = measure(Asked(asked.rounds, tuple(fall.name for fall in fallen), asked.quick))
        fallen = falls(again, stored)
    report(fallen, len([r for r in results if r.name in stored.values]), stored.tolerance)
    for said, names in (("in the baseline, not measured here", absent), ("without a baseline", new)):
        if names and not asked.wanted:
            print(f"{said}: {', '.join(names)}")
    return int(bool(fallen))


def report(fallen: list[Fall], judged: int, tolerance: dict[str, float]) -> None:
    """What fell, as a table."""
    allowed = ", ".join(f"{kind}s may fall by {share:.0%}" for kind, share in tolerance.items())
    if not fallen:
        print(f"\nnone of {judged} figures fell ({allowed})")
        return
    print(f"\nFAILED: {len(fallen)} of {judged} figures fell, twice ({allowed})")
    print("| | baseline | now | change |\n|---|---|---|---|")
    for fall in fallen:
        print(f"| {fall.name} | {fall.before:.3g} | {fall.now:.3g} | {fall.change:+.0%} |")


def scripts(asked: Asked) -> None:
    """Contests that are commands of their own."""
    for name, file in SCRIPTS.items():
        if not asked.holds(name):
            continue
        if not (HERE / file).exists():
            print(f"{name}: left out: {file} is not there")
            continue
        print(f"\n{name}: python benchmarks/{file}", flush=True)
        subprocess.run([sys.executable, str(HERE / file)], check=False)


def main() -> int:
    """Measure, print, keep, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="NAME",
        help=f"of {', '.join([*CONTESTS, *SCRIPTS])}, or CONTEST/FIGURE",
    )
    parser.add_argument("--quick", action="store_true", help="3 rounds, smaller batches")
    parser.add_argument("--rounds", type=int, default=0, help="turns of each contender; 7, or 3 with --quick")
    parser.add_argument("--json", metavar="OUT", type=Path)
    parser.add_argument("--check", metavar="BASELINE", type=Path)
    parser.add_argument("--write-baseline", metavar="BASELINE", type=Path)
    parser.add_argument("--repeats", type=int, default=1, help="measure so many times; a baseline takes 2 or more")
    given = parser.parse_args()
    unknown = {each.split("/")[0] for each in given.only} - set(CONTESTS) - set(SCRIPTS)
    if unknown:
        parser.error(f"there is no contest {', '.join(sorted(unknown))}; there are: {', '.join([*CONTESTS, *SCRIPTS])}")
    if given.write_baseline and given.repeats < 2:
        parser.error("one report says nothing of how much figures move; give --repeats 3 with --write-baseline")
    if given.check:
        read_baseline(given.check)  # before minutes are spent
    asked = Asked(given.rounds or (3 if given.quick else 7), tuple(given.only), given.quick)
    torch.set_num_threads(1)
    keep_freed_memory()
    reports = [measure(asked) for _ in range(given.repeats)]
    if not given.check and not given.write_baseline:
        scripts(asked)
    if given.json:
        given.json.write_text(json.dumps(to_json(reports[-1], about()), indent=1) + "\n", encoding="utf-8")
    if given.write_baseline:
        kept = baseline(reports, about())
        kept.write(given.write_baseline)
        print(f"\n{given.write_baseline}: {len(kept.values)} figures, tolerance {kept.tolerance}")
    return check(reports[-1], given.check, asked) if given.check else 0


if __name__ == "__main__":
    sys.exit(main())
