import itertools

import pytest
import torch
from torch import nn

from multiway.engine.optim import OptimiserSpec, build_optimiser, parameter_groups, schedule


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.body = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
        self.positions = nn.Parameter(torch.ones(4, 3))
        self.scale = nn.Parameter(torch.tensor(1.0))


def test_schedule_warms_up_peaks_and_lands() -> None:
    spec = OptimiserSpec(warmup=0.1, decay="cosine", floor=0.1)
    rates = [schedule(step, 100, spec) for step in range(101)]
    assert all(a < b for a, b in itertools.pairwise(rates[:10])) and rates[0] > 0
    assert rates[10] == pytest.approx(1.0) and rates[55] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    assert schedule(10_000, 100, spec) == pytest.approx(0.1)  # beyond the horizon the rate stays at its floor
    linear = OptimiserSpec(warmup=10, decay="linear")
    assert schedule(55, 100, linear) == pytest.approx(0.5) and schedule(4, 100, linear) == pytest.approx(5 / 11)
    assert {schedule(step, 100, OptimiserSpec(warmup=0, decay="constant")) for step in range(100)} == {1.0}


def names(group: dict) -> set[str]:
    return set(group["names"])


def test_decay_is_for_matrices_only() -> None:
    groups = {g["weight_decay"]: names(g) for g in parameter_groups(Net(), OptimiserSpec(weight_decay=0.3), [])}
    assert groups[0.3] == {"head.weight", "body.0.weight"}
    assert groups[0.0] == {"head.bias", "body.0.bias", "body.1.weight", "body.1.bias", "positions", "scale"}


def test_rules_first_match_wins_and_zero_freezes() -> None:
    net = Net()
    groups = parameter_groups(net, OptimiserSpec(), [(r"^head\.bias", 10.0), (r"^head", 0.0), (r"^body", 0.5)])
    factors = {name: g["factor"] for g in groups for name in g["names"]}
    assert factors["head.bias"] == 10.0 and "head.weight" not in factors and factors["body.0.weight"] == 0.5
    assert factors["scale"] == 1.0 and not net.head.weight.requires_grad


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"'haed' matches no trained parameter"):
        parameter_groups(Net(), OptimiserSpec(), [("haed", 0.1)])
    net = Net()
    net.body.requires_grad_(False)  # as a momentum twin is
    with pytest.raises(ValueError, match=r"'\^body' matches no trained parameter"):
        parameter_groups(net, OptimiserSpec(), [("^body", 0.1)])
    with pytest.raises(ValueError, match="every parameter is frozen"):
        parameter_groups(Net(), OptimiserSpec(), [(".", 0.0)])


def test_a_frozen_part_does_not_move_and_the_others_follow_their_factor() -> None:
    net = Net()
    optimiser = build_optimiser(net, OptimiserSpec(weight_decay=0.1), [("^body", 0.0), ("^head", 0.1)])
    for group in optimiser.param_groups:
        group["lr"] = 0.01 * group["factor"]
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    (net.body(torch.ones(2, 3)) @ net.head.weight.T + net.head.bias).sum().add(
        net.positions.sum() + net.scale
    ).backward()
    optimiser.step()
    moved = {name: float((p - before[name]).abs().max()) for name, p in net.named_parameters()}
    assert moved["body.0.weight"] == 0.0
    # AdamW's first step is the learning rate, whatever the gradient's size.
    assert moved["scale"] == pytest.approx(0.01, rel=1e-3) and moved["head.bias"] == pytest.approx(0.001, rel=1e-3)
