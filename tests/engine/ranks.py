"""Runs of small methods on one rank or two, in float64 or float32, kept so that they can be held against each other."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from forked import spawn
from multiway_batches import INFO, toy_batch
from torch import Tensor
from torch.distributed.tensor import DTensor

from multiway.batch import Batch
from multiway.engine import checkpoint
from multiway.engine.loop import train
from multiway.engine.optim import OptimiserSpec
from multiway.engine.rollback import Rollback
from multiway.engine.settings import Settings
from multiway.engine.state import tensors_of
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.byol import Byol, ByolConfig
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.method import Method
from multiway.methods.moco import Moco, MocoConfig
from multiway.methods.simclr import SimClr, SimClrConfig
from multiway.nn.backbone import resnet
from multiway.nn.batch_norm import across_ranks
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

ROWS = 12
VIT = VisionConfig(size=16, patch=8, width=16, layers=2, heads=2)
HEAD = MlpHeadConfig(hidden=16, output=8)
NET = resnet(18, "cifar", base=4)
CONFIGS = {
    "clip": (Clip, ClipConfig(image=VIT, text=TextConfig(width=16, layers=2, heads=2, pool="last"), embedding=8)),
    # A queue that the batch does not divide, negatives that get harder, and a first quarter without the fused half.
    "albef": (
        Albef,
        AlbefConfig(VIT, TextConfig(width=16, layers=1, heads=2, causal=False, pool="class"), 2, 8, queue=31, momentum=0.9, align=0.2),
    ),
    "moco": (Moco, MocoConfig(NET, HEAD, queue=31, momentum=0.9, momentum_end=0.9)),
    "byol": (Byol, ByolConfig(NET, replace(HEAD, output=8), HEAD, momentum=0.9)),
    "simclr": (SimClr, SimClrConfig(NET, HEAD)),
}  # fmt: skip
VIEWS = ("moco", "byol", "simclr")


def build(name: str, world: World, dtype: torch.dtype) -> Method:
    """Small, with nothing at zero and no dropout."""
    kind, config = CONFIGS[name]
    torch.manual_seed(0)
    method = kind(config.resolve(INFO))
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.ndim:
                parameter.add_(0.05 * torch.randn_like(parameter))
    method.started()
    return across_ranks(method, world).to(dtype)


@dataclass
class Rows:
    """Batches by number: of pairs as the loader deals them, of two views of noise dealt alike; in `bad` steps not finite."""

    name: str
    world: World
    dtype: torch.dtype
    bad: tuple[int, ...] = ()

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        return (self.batch(number) for number in range(start, stop))

    def batch(self, number: int) -> Batch:
        if self.name not in VIEWS:
            batch = toy_batch(ROWS, number, self.world.rank, self.world.size)
            images = batch.images.to(self.dtype) * (float("nan") if number in self.bad else 1.0)
            return replace(batch, images=images, patch_mask=None)
        generator = torch.Generator().manual_seed(number)
        views = torch.randn(2, ROWS, 3, 16, 16, generator=generator, dtype=torch.float64).to(self.dtype)
        index = torch.arange(ROWS) + ROWS * (number % 5)
        own = slice(self.world.rank, None, self.world.size)
        return Batch(views=tuple(view[own] for view in views), image_id=index[own] // 2, sample_index=index[own])

    def epoch(self, step: int) -> float:
        return step / 5


class Kept:
    """Journals with checkpoints on the disk, and the records of every step; three bad steps in a row go back to a checkpoint."""

    failed = False

    def __init__(self, root: Path, world: World) -> None:
        self.root, self.world, self.records, self.said, self.held = root, world, [], [], {}
        self.say = self.said.append

    def resume(self, method: Method, optimiser: torch.optim.Optimizer) -> int:
        tensors = tensors_of(method, optimiser)
        self.rollback = Rollback(3, self.root, tensors, self.say, world=self.world)
        loaded = checkpoint.load_latest(self.root, tensors, self.world)
        return loaded.step if loaded else 0

    def log(self, record, seconds: float, waiting: float, rows: int) -> None:
        self.rollback.after(record.step, record.applied)
        self.records.append(record)

    def skip(self, step: int, messages: tuple[str, ...]) -> None: ...

    def checkpoint(self, step: int, method: Method, optimiser: torch.optim.Optimizer, score: float | None) -> None:
        tensors = tensors_of(method, optimiser)
        for name, tensor in tensors.items():
            kind, own = name.partition(".")[0], tensor.to_local() if isinstance(tensor, DTensor) else tensor
            self.held[kind] = self.held.get(kind, 0) + own.numel()
        checkpoint.save(self.root, step, tensors, {"step": step}, self.world)

    def settle(self) -> None: ...


@dataclass(frozen=True)
class Case:
    """One run, and where it is kept."""

    name: str
    steps: int = 20
    shard: str = "none"
    shards: int = 0
    double: bool = True
    begun: str = ""  # a case from whose checkpoint it goes on
    kind: str = "adamw"
    lr: float = 0.01
    bad: tuple[int, ...] = ()
    unfreeze: tuple[tuple[str, float], ...] = ()
    more: tuple[tuple[str, object], ...] = ()

    def settings(self) -> Settings:
        spec = OptimiserSpec(kind=self.kind, warmup=2, unfreeze=self.unfreeze)
        more = {"horizon": 20, "log_every": 1, "checkpoint_every": 1000, "optimiser": spec, **dict(self.more)}
        return Settings(
            steps=self.steps, batch=ROWS, lr=self.lr, device="cpu", shard=self.shard, shards=self.shards, **({"precision": "fp32"} | more)
        )  # fmt: skip


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Losses and embeddings are taken in float32 at least; here float64 stays float64."""
    single = Tensor.float
    Tensor.float = lambda self: self if self.dtype == torch.float64 else single(self)
    try:
        yield
    finally:
        Tensor.float = single


def looked_at(method: Method, step: int) -> tuple[dict, float | None]:
    """An evaluation: what kind of method it is given, and a number that only whole weights have."""
    whole = not any(isinstance(each, DTensor) for each in method.parameters())
    size = torch.stack([each.double().norm() for each in method.parameters()]).norm()
    return {"whole": whole, "training": method.training, "norm": float(size)}, None


def run(cases: dict[str, Case], world: World, folder: Path, rows: type[Rows] = Rows) -> dict[str, dict]:
    """Train each; on the main rank terms of every step, and the whole method's tensors at the end, by the case's key."""
    found = {}
    for key, case in cases.items():
        dtype = torch.float64 if case.double else torch.float32
        kept, started = Kept(folder / (case.begun or key), world), build(case.name, world, dtype).state_dict()
        with exact():
            outcome = train(
                build(case.name, world, dtype), rows(case.name, world, dtype, case.bad), case.settings(), world, kept,
                finish=lambda batch: batch, evaluate=looked_at,
            )  # fmt: skip
        if world.is_main:
            found[key] = {
                "resumed": outcome.resumed_at,
                "terms": [{name: term["value"] for name, term in each.terms.items()} for each in kept.records],
                "norms": [each.grad_norm for each in kept.records],
                "health": [each.health for each in kept.records],
                "report": [each.report for each in kept.records],
                "said": kept.said,
                "held": kept.held,
                "evaluated": [each.evaluation for each in kept.records if each.evaluation],
                "state": {name: tensor.clone() for name, tensor in outcome.method.state_dict().items()},
                "started": started,
            }
    return found


def _work(
    rank: int, size: int, port: int, folder: str, cases: dict[str, Case], rows: type[Rows], configs: dict
) -> None:
    torch.set_num_threads(1)
    CONFIGS.update(configs)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    found = run(cases, World(rank, size), Path(folder), rows)
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.barrier()
    dist.destroy_process_group()


def spawned(
    cases: dict[str, Case], folder: Path, size: int = 2, rows: type[Rows] = Rows, configs: dict | None = None
) -> dict[str, dict]:
    """`run` on several ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    spawn(_work, (size, port, str(folder), cases, rows, configs or {}), nprocs=size)
    return torch.load(folder / "found.pt", weights_only=True)


def apart(one: dict[str, dict], other: dict[str, dict]) -> float:
    """The greatest relative difference of two runs' loss terms, of every step."""
    assert len(one["terms"]) == len(other["terms"])
    found = 0.0
    for mine, theirs in zip(one["terms"], other["terms"], strict=True):
        assert mine.keys() == theirs.keys()
        found = max(found, *(abs(mine[name] - theirs[name]) / max(abs(theirs[name]), 1e-6) for name in mine))
    return found


def error(one: dict[str, dict], other: dict[str, dict]) -> float:
    """The greatest relative difference of two runs: of the loss terms of every step, and of each tensor in the end.

    Tensors are held against how far training has moved them, and where that is next to nothing (a key's bias, which softmax does
    not see) against a hundredth per number.
    """
    assert one["state"].keys() == other["state"].keys()
    found = apart(one, other)
    for name, theirs in other["state"].items():
        mine = one["state"][name]
        if not theirs.is_floating_point():
            assert torch.equal(mine, theirs), name
            continue
        moved = max(float((theirs - other["started"][name]).double().norm()), 0.01 * theirs.numel() ** 0.5)
        found = max(found, float((mine.double() - theirs.double()).norm()) / moved)
    return found


def moved(found: dict[str, dict]) -> float:
    """How far training has taken the parameters, relative to their size."""
    pairs = [(end, found["started"][name]) for name, end in found["state"].items() if end.is_floating_point()]
    return (
        float(
            sum((end - start).double().square().sum() for end, start in pairs)
            / sum(start.double().square().sum() for _, start in pairs)
        )
        ** 0.5
    )
