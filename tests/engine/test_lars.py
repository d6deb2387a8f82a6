"""LARS against the update written out number by number, and what must not change it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multiway.engine.lars import LARS, adaptation


def twin(
    weight: list[float],
    gradients: list[list[float]],
    rates: list[float],
    decay: float,
    momentum: float,
    nesterov: bool,
    trust: float,
    exempt: bool,
) -> list[float]:
    """The published update of one tensor, in Python's own numbers."""
    velocity = [0.0] * len(weight)
    for gradient, rate in zip(gradients, rates, strict=True):
        update = [g + decay * w for g, w in zip(gradient, weight, strict=True)]
        size, length = math.hypot(*weight), math.hypot(*update)
        ratio = trust * size / length if size > 0 and length > 0 and not exempt else 1.0
        for place, value in enumerate(update):
            velocity[place] = momentum * velocity[place] + ratio * value
            step = ratio * value + momentum * velocity[place] if nesterov else velocity[place]
            weight[place] -= rate * step
    return weight


def run(weights: list[Tensor], gradients: list[list[Tensor]], rates: list[float], **options) -> list[Tensor]:
    """Several tensors at once; `exempt` says which."""
    exempt = options.pop("exempt")
    learnt = [torch.nn.Parameter(weight.clone()) for weight in weights]
    groups = [
        {"params": [each for each, spared in zip(learnt, exempt, strict=True) if spared is chosen], "exempt": chosen}
        for chosen in (False, True)
        if chosen in exempt
    ]
    optimiser = LARS(groups, **options)
    for step, rate in enumerate(rates):
        for each, gradient in zip(learnt, gradients[step], strict=True):
            each.grad = gradient.clone()
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
    return [each.detach() for each in learnt]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    decay=st.sampled_from([0.0, 1e-6, 0.1]),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    nesterov=st.booleans(),
    trust=st.sampled_from([0.001, 0.02]),
)
def test_equals_the_update_written_out(seed: int, decay: float, momentum: float, nesterov: bool, trust: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (5,), (2, 1, 2), ()]
    exempt = [False, True, False, False]

    def drawn() -> list[Tensor]:
        return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]

    weights, gradients = drawn(), [drawn() for _ in range(4)]
    weights[2].zero_()  # begins at nothing, as a last layer may
    gradients[1][0].zero_()  # and one step teaches nothing
    rates = [0.1, 1.0, 4.8, 0.3]
    options = {"momentum": momentum, "nesterov": nesterov and momentum > 0, "trust": trust}
    found = run(weights, gradients, rates, weight_decay=decay, exempt=exempt, **options)
    for place, weight in enumerate(weights):
        slow = twin(
            weight.flatten().tolist(),
            [step[place].flatten().tolist() for step in gradients],
            rates,
            decay,
            exempt=exempt[place],
            **options,
        )
        assert found[place].flatten().tolist() == pytest.approx(slow, rel=1e-9, abs=1e-15)


def test_a_step_is_the_trust_s_share_of_the_tensor_whatever_the_gradient_s_size() -> None:
    weight, gradient = torch.randn(8, 3), torch.randn(8, 3)
    moved = []
    for scale in (1e-4, 1.0, 1e4):
        (found,) = run([weight], [[scale * gradient]], [2.0], exempt=[False], trust=0.01)
        assert float((found - weight).norm()) == pytest.approx(2 * 0.01 * float(weight.norm()), rel=1e-4)
        moved.append(found)
    assert torch.allclose(moved[0], moved[1]) and torch.allclose(moved[1], moved[2])
    (plain,) = run([weight], [[gradient]], [2.0], exempt=[True], trust=0.01)
    assert torch.allclose(plain, weight - 2 * gradient)


def test_what_is_exempt_takes_torch_s_steps() -> None:
    """And with nothing adapted LARS is momentum SGD, Nesterov's and its decay included."""
    weights, gradients = [torch.randn(4, 4)], [[torch.randn(4, 4)] for _ in range(5)]
    rates = [0.1, 0.2, 0.3, 0.2, 0.1]
    for nesterov in (False, True):
        options = {"momentum": 0.9, "weight_decay": 0.01, "nesterov": nesterov}
        (found,) = run(weights, gradients, rates, exempt=[True], **options)
        theirs = torch.nn.Parameter(weights[0].clone())
        sgd = torch.optim.SGD([theirs], lr=0.1, foreach=False, **options)
        for rate, (gradient,) in zip(rates, gradients, strict=True):
            sgd.param_groups[0]["lr"], theirs.grad = rate, gradient.clone()
            sgd.step()
        assert torch.allclose(found, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_gradients_stay_and_what_has_none_stays() -> None:
    learnt, other = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2, 2))
    optimiser = LARS([learnt, other], lr=1.0, weight_decay=0.5, nesterov=True)
    learnt.grad = torch.full((2, 2), 3.0)
    optimiser.step()
    assert torch.equal(learnt.grad, torch.full((2, 2), 3.0))  # the log reads it after the step
    assert torch.equal(other.detach(), torch.ones(2, 2)) and other not in optimiser.state
    assert not torch.equal(learnt.detach(), torch.ones(2, 2))


def test_zero_norms_leave_the_update_as_it_is() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    assert [float(each) for each in adaptation([zero, one, one], [one, zero, 2 * one], 0.001)] == pytest.approx(
        [1.0, 1.0, 0.0005]
    )


def test_impossible_settings_are_refused() -> None:
    weight = [torch.nn.Parameter(torch.ones(2))]
    for wrong in ({"trust": 0.0}, {"momentum": 1.0}, {"weight_decay": -0.1}):
        with pytest.raises(ValueError, match="LARS needs a trust above 0"):
            LARS(weight, **wrong)
