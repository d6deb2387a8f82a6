"""Gathering across two real processes (gloo), each gradient mode held to its definition."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from multiway.world import World


def test_alone_everything_is_the_identity() -> None:
    world = World()
    rows = torch.ones(2, 3, requires_grad=True)
    assert world.gather(rows, "global") is rows
    assert not world.gather(rows).requires_grad
    assert world.all_agree(True) and not world.all_agree(False)
    assert world.mean(rows).requires_grad is False


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2)
    found = {}
    for mode in ("global", "local", "none"):
        own = torch.full((2, 1), float(rank + 1), requires_grad=True)
        everyone = world.gather(own, mode)
        assert everyone.flatten().tolist() == [1.0, 1.0, 2.0, 2.0]
        # Each rank's loss weighs row j by (rank + 1) * (j + 1).
        loss = (everyone.flatten() * torch.arange(1.0, 5.0)).sum() * (rank + 1) if everyone.requires_grad else None
        if loss is not None:
            loss.backward()
        found[mode] = None if own.grad is None else own.grad.flatten().tolist()
    found["mean"] = float(world.mean(torch.tensor(float(rank))))
    found["agree"] = world.all_agree(rank == 0)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = str(tmp_path_factory.mktemp("world"))
    mp.spawn(_worker, (folder,), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(2)]


def test_gradient_modes(two_ranks: list[dict]) -> None:
    first, second = two_ranks
    assert first["global"] == [3.0, 6.0] and second["global"] == [9.0, 12.0]  # weights of both ranks' losses: 1 + 2
    assert first["local"] == [1.0, 2.0] and second["local"] == [6.0, 8.0]
    assert first["none"] is None and second["none"] is None


def test_mean_and_agreement(two_ranks: list[dict]) -> None:
    assert [each["mean"] for each in two_ranks] == [0.5, 0.5]
    assert [each["agree"] for each in two_ranks] == [False, False]
