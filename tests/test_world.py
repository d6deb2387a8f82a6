"""Gathering across two real processes (gloo), each gradient mode held to its definition."""

import os

import pytest
import torch
import torch.distributed as dist
from forked import spawn

from multiway.world import World


def test_alone_everything_is_the_identity() -> None:
    world = World()
    rows = torch.ones(2, 3, requires_grad=True)
    assert world.gather(rows, "global") is rows
    assert not world.gather(rows).requires_grad
    assert world.all_agree(True) and not world.all_agree(False)
    assert world.mean(rows).requires_grad is False
    assert world.turns(rows) is rows
    assert world.fetch(rows, torch.tensor([1, -1, 0]))[:, 0].tolist() == [1.0, 0.0, 1.0]


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
    # Rows dealt by turns: rank r has rows r, r + 2, r + 4 of six, each filled with its number.
    own = (2.0 * torch.arange(3.0) + rank)[:, None].expand(3, 2).clone().requires_grad_()
    found["turns"] = world.turns(world.gather(own))[:, 0].tolist()
    wanted = torch.tensor([[1, -1, 5, 1], [4, 0, 3, -1]])[rank]  # one of them is this rank's own
    there = world.fetch(own, wanted)
    found["fetched"] = there[:, 1].tolist()
    (there * torch.tensor([1.0, 10.0, 100.0, 1000.0])[:, None] * (rank + 1)).sum().backward()
    found["sent back"] = own.grad[:, 0].tolist()
    found["mean"] = float(world.mean(torch.tensor(float(rank))))
    found["agree"] = world.all_agree(rank == 0)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()  # a rank that leaves first can abort the other
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = str(tmp_path_factory.mktemp("world"))
    spawn(_worker, (folder,), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(2)]


def test_gradient_modes(two_ranks: list[dict]) -> None:
    first, second = two_ranks
    assert first["global"] == [3.0, 6.0] and second["global"] == [9.0, 12.0]  # weights of both ranks' losses: 1 + 2
    assert first["local"] == [1.0, 2.0] and second["local"] == [6.0, 8.0]
    assert first["none"] is None and second["none"] is None


def test_mean_and_agreement(two_ranks: list[dict]) -> None:
    assert [each["mean"] for each in two_ranks] == [0.5, 0.5]
    assert [each["agree"] for each in two_ranks] == [False, False]


def test_rows_in_the_datas_order_and_rows_of_others(two_ranks: list[dict]) -> None:
    first, second = two_ranks
    assert first["turns"] == second["turns"] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert first["fetched"] == [1.0, 0.0, 5.0, 1.0] and second["fetched"] == [4.0, 0.0, 3.0, 0.0]
    assert first["sent back"] == [
        20.0,
        0.0,
        2.0,
    ]  # rows 0, 2, 4: rank 1 asked for 4 with weight 1 and 0 with 10, twice each
    assert second["sent back"] == [1001.0, 200.0, 100.0]  # rows 1, 3, 5
