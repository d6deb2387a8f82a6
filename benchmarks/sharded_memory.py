"""What a rank keeps of a method in training, measured: bytes of parameters, gradients and moments, on 1, 2 and 4 ranks.

    python benchmarks/sharded_memory.py                                 CLIP ViT-B/32; takes about 8 GB of memory
    python benchmarks/sharded_memory.py --preset tiny                   seconds, a few MB
    python benchmarks/sharded_memory.py --method albef --ranks 2 --precision bf16

Each number of ranks takes one step (gloo, the processor) on random pictures and texts; then the tensors that every rank holds are
counted, and rank 0's are shown beside what the formula of docs/cluster.md says: 4 bytes for each of parameter, gradient and two
moments of what is learnt, of matrices 1/N. `borrowed` is what one rank gathers for a moment at most: what lies beside the units, and
two units, the one that computes and the one that comes next. Counting is exact, so that other work on the machine changes nothing.
Exit status 1 if a rank holds more than the formula says and rows that do not divide explain.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from multiway.batch import Batch, DataInfo
from multiway.engine.loop import train
from multiway.engine.settings import Settings
from multiway.methods import method_class
from multiway.methods.method import Method
from multiway.nn.sharded import is_sharded, local
from multiway.nn.units import rounds_nothing, units
from multiway.world import World

WORDS, ROWS = 16, 8
MB = 1e6


class Random:
    """One batch of random pictures, and texts with a few words masked."""

    def __init__(self, side: int, vocabulary: int, world: World) -> None:
        generator = torch.Generator().manual_seed(0)
        own = slice(world.rank, None, world.size)
        ids = torch.randint(4, vocabulary, (ROWS, WORDS), generator=generator)[own]
        masked = torch.arange(WORDS).expand_as(ids) % 5 == 2
        rows = torch.arange(ROWS)[own]
        self.batch = Batch(
            images=torch.randn(ROWS, 3, side, side, generator=generator)[own],
            text=ids,
            text_mask=torch.ones_like(ids, dtype=torch.bool),
            masked_text=ids,
            masked=masked,
            image_id=rows,
            text_id=rows,
            sample_index=rows,
        )

    def batches(self, start: int, stop: int) -> Any:
        return (self.batch for _ in range(start, stop))

    def epoch(self, step: int) -> float:
        return 0.0


class Counting:
    """Journals that count what is held when a step is logged: gradients are still there."""

    say = staticmethod(print)
    failed = False

    def resume(self, method: Method, optimiser: torch.optim.Optimizer) -> int:
        self.method, self.optimiser = method, optimiser
        # Gradients are let go before the log is written; a hook of the optimiser sees them.
        optimiser.register_step_post_hook(lambda *given: self.count())
        return 0

    def count(self) -> None:
        parameters = list(self.method.parameters())
        self.held = {
            "parameters": held(parameters),
            "gradients": held([each.grad for each in parameters if each.grad is not None]),
            "moments": held([each for state in self.optimiser.state.values() for each in state.values() if each.ndim]),
        }

    def log(self, *given: Any) -> None: ...

    def skip(self, *given: Any) -> None: ...

    def checkpoint(self, *given: Any) -> None: ...

    def settle(self) -> None: ...


def held(tensors: list[Tensor]) -> int:
    """Bytes of this rank's parts."""
    return sum(local(each).numel() * each.element_size() for each in tensors)


def formula(method: nn.Module, ranks: int, bf16: bool) -> dict[str, int]:
    """What docs/cluster.md says that a rank holds, and borrows, in bytes."""
    own = [(each.numel(), each.ndim > 1, each.requires_grad) for each in method.parameters()]
    share = {
        learns: sum(n / ranks if cut else n for n, cut, learnt in own if learnt or not learns)
        for learns in (False, True)
    }
    found = units(method)
    sizes = {
        name: sum(each.numel() for each in unit.parameters() if each.ndim > 1)
        * (2 if bf16 and rounds_nothing(unit) else 4)
        for name, unit in found.items()
    }
    inside = {id(each) for unit in found.values() for each in unit.parameters()}
    beside = sum(4 * each.numel() for each in method.parameters() if each.ndim > 1 and id(each) not in inside)
    return {
        "parameters": round(4 * share[False]),
        "gradients": round(4 * share[True]),
        "moments": round(8 * share[True]),
        "borrowed": 0 if ranks == 1 else beside + 2 * max(sizes.values(), default=0),
    }


def measure(rank: int, ranks: int, port: int, options: argparse.Namespace, out: str) -> None:
    """One step on one rank."""
    torch.set_num_threads(1)
    world = World(rank, ranks)
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    vocabulary = options.vocabulary
    info = DataInfo(vocabulary=vocabulary, context=WORDS, special={"pad": 0, "eos": 3, "mask": 1})
    kind = method_class(options.method)
    method = kind(kind.config_class.preset(options.preset).resolve(info))  # type: ignore[attr-defined]
    expected = formula(method, ranks, options.precision == "bf16")
    rows_left = 4 * sum(each[:1].numel() for each in method.parameters() if each.ndim > 1)
    side = getattr(method.config.image, "size", 224)
    settings = Settings(steps=1, batch=ROWS, lr=1e-3, device="cpu", precision=options.precision, shard="full")
    counting = Counting()
    train(method, Random(side, vocabulary, world), settings, world, counting, finish=lambda batch: batch)
    if rank == 0:
        whole = not any(map(is_sharded, method.parameters()))
        found = {"ranks": ranks, "measured": counting.held, "formula": expected, "row": rows_left, "whole": whole}
        Path(out).write_text(json.dumps(found))
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="clip")
    parser.add_argument("--preset", default="vit-b-32")
    parser.add_argument("--vocabulary", type=int, default=30522, help="for configurations that leave it to the data")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    found = []
    for ranks in options.ranks:
        with TemporaryDirectory() as folder, socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            probe.close()
            out = f"{folder}/found.json"
            mp.spawn(measure, (ranks, port, options, out), nprocs=ranks)
            found.append(json.loads(Path(out).read_text()))
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{options.method} {options.preset}, {options.precision}; MB on rank 0, measured (formula)")
        print(f"{'ranks':>5} {'parameters':>19} {'gradients':>19} {'moments':>19} {'all':>19} {'borrowed':>10}")
        for each in found:
            cells = [(each["measured"][name], each["formula"][name]) for name in ("parameters", "gradients", "moments")]
            cells.append((sum(one for one, _ in cells), sum(other for _, other in cells)))
            shown = " ".join(f"{one / MB:>9,.1f} ({other / MB:>7,.1f})" for one, other in cells)
            print(f"{each['ranks']:>5} {shown} {each['formula']['borrowed'] / MB:>10,.1f}")
    return 0 if all(fits(each) for each in found) else 1


def fits(each: dict[str, Any]) -> bool:
    """Whether a rank holds what the formula says, up to a row of every matrix that does not divide."""
    pairs = [(each["measured"][name], each["formula"][name]) for name in each["measured"]]
    return all(abs(one - other) <= 2 * each["row"] for one, other in pairs)


if __name__ == "__main__":
    raise SystemExit(main())
