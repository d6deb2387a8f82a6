"""Runs by every optimiser, stopped in the middle and gone on with: the schedules are functions of the step, the rest is state."""

from dataclasses import replace

import pytest
import torch
from test_loop import SETTINGS, Memory, Toy, run

from multiway.engine.optim import OptimiserSpec

SPECS = {
    "adamw": OptimiserSpec(warmup=2, weight_decay=0.04, weight_decay_end=0.4),
    "sgd": OptimiserSpec(kind="sgd", warmup=2, decay="steps", steps=(0.5, 9), nesterov=True, weight_decay_end=0.4),
    "lars": OptimiserSpec(kind="lars", warmup=2, trust=0.02, constant_rate=("bias",), clip=0.0),
}


@pytest.mark.parametrize("kind", SPECS)
def test_stopping_and_going_on_changes_nothing(kind: str) -> None:
    settings = replace(SETTINGS, optimiser=SPECS[kind])
    straight, whole, _ = run(Toy(dropout=0.3), settings)
    _, first, _ = run(Toy(dropout=0.3), replace(settings, steps=5, horizon=12))
    resumed, second, outcome = run(Toy(dropout=0.3), settings, Memory(first.saved[5][:3]))
    assert outcome.resumed_at == 5
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert second.records == whole.records[2:]
    # Without its velocities it would have gone another way, or equality would mean little.
    step, weights, moments = first.saved[5][:3]
    forgetful, _, _ = run(Toy(dropout=0.3), settings, Memory((step, weights, moments | {"state": {}})))
    assert not torch.equal(forgetful.map.weight, straight.map.weight)


def test_every_optimiser_learns_the_toy() -> None:
    for kind, rate in (("adamw", 0.02), ("sgd", 0.05), ("lars", 0.5)):
        spec = OptimiserSpec(kind=kind, warmup=2, weight_decay=0.0, clip=0.0, trust=0.1)
        _, memory, _ = run(settings=replace(SETTINGS, steps=60, lr=rate, optimiser=spec))
        assert memory.records[-1]["loss"] < 0.5 * memory.records[0]["loss"], kind


def test_a_constant_rate_is_constant_in_the_loop() -> None:
    """SimSiam's predictor: two runs that differ in it alone are equal until the decay begins."""
    spec = OptimiserSpec(kind="sgd", warmup=3, weight_decay=0.0, clip=0.0)
    settings = replace(SETTINGS, checkpoint_every=1, optimiser=spec)
    decayed = run(settings=settings)[1].saved
    held = run(settings=replace(settings, optimiser=replace(spec, constant_rate=("bias",))))[1].saved
    assert all(torch.equal(decayed[step][1]["map.bias"], held[step][1]["map.bias"]) for step in range(1, 5))
    assert not torch.equal(decayed[6][1]["map.bias"], held[6][1]["map.bias"])
    assert all(moments["param_groups"][1]["lr"] == 0.01 for step, (_, _, moments, _) in held.items() if step > 3)
