"""A checkpoint holds what an optimiser keeps, by one set of names from before the first step on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_loop import SETTINGS, Toy, run

from multiway.engine.optim import OptimiserSpec, build_optimiser
from multiway.engine.recorder import Recorder
from multiway.engine.run import Run
from multiway.engine.state import tensors_of

MOMENTS = {"adamw": {"step", "exp_avg", "exp_avg_sq"}, "sgd": {"momentum_buffer"}, "lars": {"momentum_buffer"}}


def names(method: Toy, optimiser: torch.optim.Optimizer) -> list[str]:
    return list(tensors_of(method, optimiser))


@pytest.mark.parametrize("kind", MOMENTS)
def test_names_are_the_same_at_any_time(kind: str) -> None:
    method = Toy()
    optimiser = build_optimiser(method, OptimiserSpec(kind=kind), [])
    before = names(method, optimiser)
    wanted = {f"optimiser.map.{part}.{moment}" for part in ("weight", "bias") for moment in MOMENTS[kind]}
    assert {each for each in before if each.startswith("optimiser")} == wanted
    method.map(torch.ones(1, 4)).sum().backward()
    optimiser.step()
    assert names(method, optimiser) == before
    live = tensors_of(method, optimiser)["optimiser.map.bias." + next(iter(MOMENTS[kind]))]
    assert any(live is each for each in optimiser.state[method.map.bias].values())


@pytest.mark.parametrize("kind", MOMENTS)
def test_a_run_folder_restores_every_moment(kind: str, tmp_path: Path) -> None:
    """Through the folder's own checkpoints: what is read back is what was written, to the bit."""
    settings = replace(SETTINGS, checkpoint_every=4, optimiser=OptimiserSpec(kind=kind, warmup=2, weight_decay=0.04))
    straight, _, _ = run(Toy(dropout=0.3), settings)
    for steps in (5, 12):
        method = Toy(dropout=0.3)
        with Run.open(tmp_path / kind, {"kind": kind}, set()) as folder:
            given = replace(settings, steps=steps, horizon=12)
            _, _, outcome = run(method, given, Recorder(folder, given, lambda text: None, []))
    assert outcome.resumed_at == 5 and outcome.finished
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, method.state_dict()[name]), name
