from dataclasses import replace

import pytest
import torch
from torch import nn

from multiway.engine.lars import LARS
from multiway.engine.optim import OptimiserSpec, build_optimiser, parameter_groups, schedule
from multiway.engine.schedule import set_rates, weight_decay_at


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.body = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
        self.positions = nn.Parameter(torch.ones(4, 3))
        self.scale = nn.Parameter(torch.tensor(1.0))


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
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in net.named_parameters()}
    assert moved["body.0.weight"] == 0.0
    # AdamW's first step is the learning rate, whatever the gradient's size.
    assert moved["scale"] == pytest.approx(0.01, rel=1e-3) and moved["head.bias"] == pytest.approx(0.001, rel=1e-3)


def test_exempt_and_constant_parameters_are_groups_of_their_own() -> None:
    groups = parameter_groups(Net(), OptimiserSpec(weight_decay=0.0, constant_rate=("^head",)), [])
    found = {(g["exempt"], g["constant"]): names(g) for g in groups}
    assert found == {
        (False, False): {"body.0.weight"},
        (True, False): {"body.0.bias", "body.1.weight", "body.1.bias", "positions", "scale"},
        (False, True): {"head.weight"},
        (True, True): {"head.bias"},
    }
    (every,) = parameter_groups(Net(), OptimiserSpec(weight_decay=0.3, exempt=False), [])
    assert len(every["params"]) == 8 and every["weight_decay"] == 0.3 and not every["exempt"]
    with pytest.raises(ValueError, match=r"constant_rate 'predcitor' matches no trained parameter"):
        parameter_groups(Net(), OptimiserSpec(constant_rate=("predcitor",)), [])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"momentum": 1.0}, "momentum lies in"),
        ({"trust": 0.0}, "trust is above 0"),
        ({"factor": 1.0}, "a factor of the rate lies in"),
        ({"weight_decay_end": -0.1}, "weight decay is 0 or more"),
        ({"warmup": -1}, "given warmup -1"),
        ({"clip": -1.0}, "clip -1"),
        ({"floor": 2.0}, "floor 2"),
        ({"betas": (0.9, 1.0)}, "betas lie in"),
        ({"epsilon": 0.0}, "epsilon is above 0"),
        ({"nesterov": True}, "of which adamw"),
        ({"kind": "sgd", "momentum": 0.0, "nesterov": True}, "choose kind sgd or lars with a momentum"),
        ({"decay": "steps"}, "Give both"),
        ({"steps": (0.6, 0.8)}, "Give both"),
        ({"decay": "steps", "steps": (0.0, 0.8)}, "after the first"),
        ({"decay": "steps", "steps": (0.6,), "floor": 0.1}, "leave it out"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        OptimiserSpec(**options)


def gradients_of(net: Net, step: int) -> None:
    """Some gradient for every parameter but, at first, the scale: a part that joins later."""
    generator = torch.Generator().manual_seed(step)
    for name, parameter in net.named_parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if name == "scale" and step < 2 else gradient


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_equals_torch_s_tensor_by_tensor(momentum: float, nesterov: bool) -> None:
    """The slow obvious twin: an optimiser for each parameter, with its rate and decay of every step."""
    spec = OptimiserSpec(
        kind="sgd", momentum=momentum, nesterov=nesterov and momentum > 0, warmup=3, weight_decay=0.04, weight_decay_end=0.4,
        constant_rate=("^head",),
    )  # fmt: skip
    torch.manual_seed(0)
    net = Net()
    twin = Net()
    twin.load_state_dict(net.state_dict())
    optimiser = build_optimiser(net, spec, [("^body", 0.5)])
    assert isinstance(optimiser, torch.optim.SGD) and optimiser.defaults["fused"]
    each = {
        name: torch.optim.SGD([parameter], 0.1, momentum, nesterov=spec.nesterov, foreach=False)
        for name, parameter in twin.named_parameters()
    }
    for step in range(10):
        set_rates(optimiser.param_groups, step, 10, 0.2, spec)
        gradients_of(net, step)
        optimiser.step()
        gradients_of(twin, step)
        for name, parameter in net.named_parameters():  # gradients stay as they are: the log reads them afterwards
            if parameter.grad is not None:
                assert torch.equal(parameter.grad, twin.get_parameter(name).grad)
        for name, single in each.items():
            rate = 0.2 * (0.5 if name.startswith("body") else 1.0)
            decay = weight_decay_at(step, 10, spec) if name in ("head.weight", "body.0.weight") else 0.0
            share = min(1.0, (step + 1) / 4) if name.startswith("head") else schedule(step, 10, spec)
            single.param_groups[0] |= {"lr": rate * share, "weight_decay": decay}
            single.step()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter, twin.get_parameter(name), rtol=1e-5, atol=1e-6)


def test_lars_adapts_matrices_only_unless_nothing_is_exempt() -> None:
    spec = OptimiserSpec(kind="lars", momentum=0.0, weight_decay=0.0, trust=0.01, warmup=0, decay="constant")
    for exempt in (True, False):
        torch.manual_seed(0)
        net = Net()
        before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
        optimiser = build_optimiser(net, replace(spec, exempt=exempt), [])
        assert isinstance(optimiser, LARS)
        set_rates(optimiser.param_groups, 0, 10, 0.5, spec)
        gradients_of(net, 7)
        optimiser.step()
        for name, parameter in net.named_parameters():
            moved = float((parameter.detach() - before[name]).norm())
            adapted = 0.5 * 0.01 * float(before[name].norm())
            plain = 0.5 * float(parameter.grad.norm())
            begins_at_nothing = not before[name].any()
            matrix = name in ("head.weight", "body.0.weight")
            wanted = plain if begins_at_nothing or (exempt and not matrix) else adapted
            assert moved == pytest.approx(wanted, rel=1e-4), name


@pytest.mark.parametrize("kind", ["sgd", "lars"])
def test_velocities_are_there_from_the_beginning(kind: str) -> None:
    optimiser = build_optimiser(Net(), OptimiserSpec(kind=kind), [])
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    assert all(list(optimiser.state[each]) == ["momentum_buffer"] for each in parameters) and len(parameters) == 8
    assert not any(optimiser.state[each]["momentum_buffer"].any() for each in parameters)
    gradients_of(net := Net(), 3)
    none = build_optimiser(net, OptimiserSpec(kind=kind, momentum=0.0), [])
    none.step()
    assert not any("momentum_buffer" in none.state[each] for each in none.state)
