"""LARS equals timm's and lightly's. Runs in the peers' environment.

Both divide by |g| + b |w|, as the paper does, where ours has |g + b w|, as the code of SimCLR, BYOL and MoCo v3: the same without a
decay, and close at theirs of 1e-6. lightly's takes a group without decay to be one that is not adapted either.
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from with_torchvision import ensure_torchvision

if not ensure_torchvision():
    pytest.skip(
        "torchvision, which the peers need, is not installed here; run `make test-peers`", allow_module_level=True
    )
timm_lars = pytest.importorskip("timm.optim.lars", reason="timm is not installed here; run `make test-peers`")
lightly_lars = pytest.importorskip("lightly.utils.lars", reason="lightly is not installed here; run `make test-peers`")

from multiway.engine.lars import LARS  # noqa: E402


def weights() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (2, 3, 3, 3), (5, 1))]


def steps(optimiser: torch.optim.Optimizer, learnt: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    """Ten steps of a rate that warms up and falls."""
    for step in range(10):
        generator = torch.Generator().manual_seed(step + 1)
        for weight in learnt:
            weight.grad = torch.randn(weight.shape, generator=generator)
        for group in optimiser.param_groups:
            group["lr"] = (2.0, 4.0, 4.8)[min(step, 2)] / (1 + step)
        optimiser.step()
    return [weight.detach() for weight in learnt]


def equal(found: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    began = weights()
    for ours, other, before in zip(found, theirs, began, strict=True):
        assert float((ours - before.detach()).norm()) > 1e-3  # there is something to be equal in
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_lightly_s(nesterov: bool) -> None:
    ours, theirs = weights(), weights()
    options = {"lr": 1.0, "momentum": 0.9, "weight_decay": 1e-6, "nesterov": nesterov}
    equal(steps(LARS(ours, **options), ours), steps(lightly_lars.LARS(theirs, eps=0.0, **options), theirs))


@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_timm_s(nesterov: bool) -> None:
    ours, theirs = weights(), weights()
    options = {"lr": 1.0, "momentum": 0.9, "nesterov": nesterov}
    other = timm_lars.Lars(theirs, trust_coeff=0.001, eps=0.0, always_adapt=True, **options)
    equal(steps(LARS(ours, **options), ours), steps(other, theirs))
