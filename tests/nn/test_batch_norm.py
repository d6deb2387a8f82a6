"""Batch normalisation over two ranks' rows against one rank with all of them, and over groups against loops."""

import copy
import socket

import pytest
import torch
import torch.distributed as dist
from forked import spawn
from safetensors.torch import load_file, save_file
from torch import nn

from multiway.nn.batch_norm import GroupedBatchNorm, RankBatchNorm, across_ranks, in_groups, shuffled
from multiway.world import World

ROWS = 7
SHARES = [slice(0, 4), slice(4, 7)]  # ranks may bring different numbers of rows


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4, affine=False)
    ).double()  # fmt: skip


def results(model: nn.Module, x: torch.Tensor, weight: torch.Tensor, share: float) -> dict[str, torch.Tensor]:
    """Two steps' outputs, gradients and buffers. `share` makes the mean of ranks' losses that of one rank."""
    found = {}
    leaf = x.clone().requires_grad_()
    for step in range(2):
        model.zero_grad()
        out = model(leaf + step)
        ((out * weight).square().mean(1).sum() * share).backward()
        found[f"out{step}"] = out.detach()
    found["input"] = leaf.grad
    found |= {f"gradient {n}": p.grad for n, p in model.named_parameters()}
    found |= {f"buffer {n}": b.double() for n, b in model.named_buffers()}
    model.eval()
    found["eval"] = model(x).detach()
    return {name: value.clone() for name, value in found.items()}


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    # Far from zero, where a variance as a difference of squares would lose its digits.
    return (
        torch.randn(ROWS, 2, 3, 3, generator=generator, dtype=torch.float64) + 1e4,
        torch.randn(ROWS, 4, generator=generator, dtype=torch.float64),
    )


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    x, weight = data()
    model = across_ranks(network(), World(rank, 2))
    assert sum(isinstance(part, RankBatchNorm) for part in model.modules()) == 2
    found = results(model, x[SHARES[rank]], weight[SHARES[rank]], 1.0)
    for name in sorted(found):
        if name.startswith("gradient"):
            dist.all_reduce(found[name])
    save_file(found, f"{folder}/{rank}.safetensors")
    dist.barrier()  # a rank that leaves first can abort the other
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("norm"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(work, (port, folder), nprocs=2)
    return [load_file(f"{folder}/{rank}.safetensors") for rank in range(2)]


def test_two_ranks_equal_one_in_outputs_gradients_and_running_statistics(two_ranks):
    wanted = results(network(), *data(), 1.0)
    for name, value in wanted.items():
        if name.startswith(("gradient", "buffer")):
            for rank in range(2):
                torch.testing.assert_close(two_ranks[rank][name], value, rtol=1e-6, atol=1e-8)
        else:
            both = torch.cat([two_ranks[rank][name] for rank in range(2)])
            torch.testing.assert_close(both, value, rtol=1e-6, atol=1e-6)


def test_one_rank_is_left_as_it_is() -> None:
    model = network()
    assert across_ranks(model, World()) is model and type(model[1]) is nn.BatchNorm2d


def test_replacing_keeps_tensors_names_and_mode() -> None:
    model = network().eval()
    before = dict(model.state_dict(keep_vars=True))
    model = across_ranks(model, World(0, 2))
    after = dict(model.state_dict(keep_vars=True))
    assert before.keys() == after.keys() and all(before[name] is after[name] for name in before)
    assert not model[1].training
    twin = copy.deepcopy(model)
    assert twin[1].world == World(0, 2) and twin[1].weight is not model[1].weight
    x = data()[0]
    torch.testing.assert_close(model(x), network().eval()(x))  # evaluation asks no other rank


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_groups_are_devices_of_their_own(groups):
    x = torch.randn(ROWS, 4, dtype=torch.float64)
    model = in_groups(nn.Sequential(nn.BatchNorm1d(4)).double(), groups)
    out = model(x)
    running = []
    for part, mine in zip(x.tensor_split(groups), out.tensor_split(groups), strict=True):
        alone = nn.BatchNorm1d(4).double()
        torch.testing.assert_close(mine, alone(part))
        running.append(torch.stack([alone.running_mean, alone.running_var]))
    kept = torch.stack([model[0].running_mean, model[0].running_var])
    torch.testing.assert_close(kept, torch.stack(running).mean(0))
    assert int(model[0].num_batches_tracked) == 1
    assert isinstance(model[0], GroupedBatchNorm) and model.eval()(x[:1]).shape == (1, 4)
    with pytest.raises(ValueError, match="at least two rows a group"):
        in_groups(nn.Sequential(nn.BatchNorm1d(4)), 4)(torch.randn(ROWS, 4))
    with pytest.raises(ValueError, match="0 groups"):
        in_groups(model, 0)


def test_shuffling_matters_in_groups_and_not_over_all_rows() -> None:
    """Why keys are shuffled between groups, and why that is in vain where all rows share their statistics."""
    torch.manual_seed(0)
    x, (order, back) = torch.randn(12, 4), shuffled(12)
    assert torch.equal(x[order][back], x) and sorted(order.tolist()) == list(range(12))
    whole, grouped = nn.BatchNorm1d(4), in_groups(nn.BatchNorm1d(4), 3)
    torch.testing.assert_close(whole(x[order])[back], whole(x))
    assert not torch.allclose(grouped(x[order])[back], grouped(x), atol=1e-2)


def test_shapes_that_have_no_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        across_ranks(nn.BatchNorm1d(4), World(0, 2))(torch.randn(4))
