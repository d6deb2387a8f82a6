"""Two ranks against one: the self-supervised losses and the gradients that DDP would average."""

import socket

import pytest
import torch
import torch.distributed as dist
from forked import spawn
from safetensors.torch import load_file, save_file

from multiway.losses.cpc import cpc
from multiway.losses.info_nce import info_nce
from multiway.losses.koleo import koleo
from multiway.losses.masked_patches import masked_patches
from multiway.losses.nce import log_partition, nce
from multiway.losses.nt_xent import nt_xent
from multiway.losses.reconstruction import reconstruction
from multiway.losses.regress import regress
from multiway.losses.self_distillation import self_distillation
from multiway.losses.sinkhorn import sinkhorn
from multiway.losses.spread import spread
from multiway.losses.swapped import swapped
from multiway.losses.uniformity import alignment, uniformity
from multiway.nn.center import mean_outputs
from multiway.world import World

ROWS, RANKS = 6, 2
IMAGE_ID = torch.tensor([0, 1, 0, 3, 4, 1])  # shared within a rank, and across
# The ranks hide different numbers of patches; each view hides some.
MASK = torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]).bool()


def losses(world: World, rows: slice) -> dict[str, torch.Tensor]:
    """Loss, chance where it is of all ranks, and gradient of a matrix that makes the features, by name."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(ROWS, 5, generator=generator, dtype=torch.float64) for _ in range(3)]
    matrix = torch.randn(5, 5, generator=generator, dtype=torch.float64).requires_grad_()
    bank = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    steps = torch.randn(ROWS, 3, 5, generator=generator, dtype=torch.float64)
    a, b, c = (each[rows] @ matrix for each in inputs)
    center, ids, mask = bank[0], IMAGE_ID[rows], MASK[rows]
    tokens = steps[rows] @ matrix
    codes = [sinkhorn(each, world, 0.5) for each in (a, b)]
    log_z = log_partition(a, b, bank, 50, world, 0.5)
    distilled = self_distillation([a, b, c], [b, a], center, world, 0.5, 0.3)
    found = {
        "nt_xent": nt_xent([a, b], world, 0.5),
        "nt_xent of three, with ids": nt_xent([a, b, c], world, 0.5, ids, chunk=2),
        "info_nce of the batch": info_nce(a, b, world, 0.5, key_id=ids, gradient="global"),
        "info_nce of keys": info_nce(a, b, world, 0.5, scaled=True),
        "info_nce of a queue": info_nce(a, b, world, 0.5, bank, ids, torch.arange(9)),
        "nce": nce(a, b, bank, 50, log_z, 0.5),
        "spread": spread(a, b, world, 0.5, image_id=ids),
        "spread both": spread(a, b, world, 0.5, gradient="global"),
        "regress": regress([a, b, c], [b, c], world),
        "swapped": swapped([a, b, c], codes, world, 0.5),
        "self_distillation": distilled,
        "masked_patches": masked_patches(tokens[mask], steps[rows][mask], mask, center, 0.5, 0.3),
        "koleo": koleo(a, world),
        "reconstruction": reconstruction(tokens, steps[rows], mask, world, "absolute", True),
        "cpc": cpc(tokens, tokens, bank[:5][None], world, chunk=3),
        "cpc others": cpc(tokens, tokens, bank[:5][None], world, "others"),
    }
    told = {}
    for name, each in found.items():
        (gradient,) = torch.autograd.grad(each.loss, matrix, retain_graph=True)
        told |= {f"{name}/loss": each.loss.detach(), f"{name}/gradient": gradient}
        if name not in ("reconstruction",):  # that of this rank's patches
            told[f"{name}/chance"] = torch.tensor(each.chance, dtype=torch.float64)
    told |= {"uniformity": uniformity(a, world), "alignment": alignment(a, b, world), "usage": distilled.usage}
    told |= {"log_z": log_z, "center": mean_outputs([a, tokens], world)}
    told["codes"] = world.gather(codes[0].contiguous())
    return {name: value.clone() for name, value in told.items()}


def work(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    share = ROWS // RANKS
    found = losses(World(rank, RANKS), slice(rank * share, (rank + 1) * share))
    for name in sorted(found):
        dist.all_reduce(found[name])
    if rank == 0:
        save_file({name: value / RANKS for name, value in found.items()}, out)
    dist.barrier()  # a rank that leaves first can abort the other
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    out = str(tmp_path_factory.mktemp("ranks") / "averaged.safetensors")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(work, (port, out), nprocs=RANKS)
    return load_file(out)


def test_two_ranks_equal_one(two_ranks):
    one, wrong = losses(World(), slice(None)), []
    assert one.keys() == two_ranks.keys() and len(one) > 50
    for name, value in one.items():
        # Chances are Python's numbers of float32 counts; centres are kept in float32.
        tolerance = 1e-5 if "chance" in name or name == "center" else 1e-9
        if not torch.allclose(two_ranks[name], value, rtol=tolerance, atol=tolerance / 10):
            wrong.append((name, two_ranks[name], value))
    assert not wrong
