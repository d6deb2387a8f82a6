"""Spread and gradients in numbers: against definitions, at collapse, and with nan."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from multiway.engine.health import MAX_PAIRED, MAX_ROWS, effective_rank, gradient_health, health


def unit(rows, width, seed=0):
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_an_even_spread():
    found = health({"image": unit(400, 32)})
    assert found["image/std"] == pytest.approx(1.0, abs=0.02)
    assert found["image/mean_cosine"] == pytest.approx(0.0, abs=0.01)
    assert found["image/rank"] > 30 and found["image/rank_limit"] == 32
    assert found["image/nonfinite"] == 0


def test_collapse_to_a_point():
    found = health({"text": unit(1, 32).repeat(64, 1) + 1e-6 * torch.randn(64, 32)})
    assert found["text/std"] < 1e-4
    assert found["text/mean_cosine"] == pytest.approx(1.0, abs=1e-5)
    assert found["text/rank"] < 1.01


def test_collapse_to_a_plane_shows_in_the_rank_alone():
    plane = F.normalize(torch.randn(256, 2), dim=1) @ torch.linalg.qr(torch.randn(64, 2)).Q.T
    found = health({"image": plane})
    assert found["image/rank"] == pytest.approx(2.0, abs=0.1)
    assert found["image/mean_cosine"] < 0.1


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 9))
def test_numbers_agree_with_their_definitions(rows, width, seed):
    x = unit(rows, width, seed)
    found = health({"x": x})
    cosine = [float(x[i].double() @ x[j].double()) for i in range(rows) for j in range(rows) if i != j]
    assert found["x/mean_cosine"] == pytest.approx(sum(cosine) / len(cosine), abs=1e-5)
    singular = torch.linalg.svdvals(x.double())
    share = singular / singular.sum()
    entropy = -sum(float(p) * math.log(float(p)) for p in share if p > 1e-9)
    assert found["x/rank"] == pytest.approx(math.exp(entropy), rel=1e-4)
    assert found["x/std"] == pytest.approx(float(x.double().std(0, correction=0).mean()) * width**0.5, abs=1e-5)
    assert 1 - 1e-9 <= found["x/rank"] <= found["x/rank_limit"] + 1e-6


def test_uniformity_is_that_of_its_first_rows():
    x = unit(MAX_PAIRED + 40, 8)
    wanted = [math.exp(-2 * float((a - b).square().sum())) for a, b in itertools.permutations(x[:30].double(), 2)]
    assert health({"x": x[:30]})["x/uniformity"] == pytest.approx(math.log(sum(wanted) / len(wanted)), abs=1e-5)
    assert health({"x": x})["x/uniformity"] == pytest.approx(health({"x": x[:MAX_PAIRED]})["x/uniformity"], abs=1e-5)
    assert health({"x": x[:1].repeat(9, 1)})["x/uniformity"] == pytest.approx(0.0, abs=1e-5)


def test_rows_beyond_the_limit_do_not_enter_the_rank():
    rows = torch.cat([unit(1, 8).repeat(MAX_ROWS, 1), unit(50, 8, 1)])
    assert health({"x": rows})["x/rank"] == pytest.approx(1.0, abs=1e-3)


def test_scale_does_not_matter_and_bf16_hardly():
    x = unit(64, 16)
    plain, scaled, rounded = (health({"x": each}) for each in (x, 7 * x, x.bfloat16()))
    assert plain == pytest.approx(scaled, abs=1e-4)
    assert plain == pytest.approx(rounded, rel=0.02, abs=0.01)


def test_nan_rows_are_counted_and_left_out():
    x = unit(64, 16)
    broken = torch.cat([x, torch.full((3, 16), float("nan")), torch.full((1, 16), float("inf"))])
    assert health({"x": broken}) == pytest.approx({**health({"x": x}), "x/nonfinite": 4.0})
    assert health({"x": broken[64:]}) == {"x/nonfinite": 4.0}
    assert health({"x": x[:1]}) == {"x/nonfinite": 0.0}


def test_nothing_to_watch():
    assert health({}) == {}
    assert effective_rank(torch.zeros(4, 4)) == 0.0
    with pytest.raises(ValueError, match=r"`image` have shape \(2, 3, 4\); expected embeddings"):
        health({"image": torch.zeros(2, 3, 4)})


def test_gradients():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert gradient_health(model.parameters()) == {
        "gradient/norm": 0.0,
        "gradient/zero_share": 1.0,
        "gradient/nonfinite": 0.0,
    }
    model(torch.randn(16, 4)).square().sum().backward()
    found = gradient_health(model.parameters())
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert found["gradient/norm"] == pytest.approx(float(expected.norm()), rel=1e-5)
    assert found["gradient/zero_share"] == pytest.approx(float((expected == 0).float().mean()))
    model[0].bias.grad[0] = float("nan")
    found = gradient_health(model.parameters())
    assert found["gradient/nonfinite"] == 1 and math.isnan(found["gradient/norm"])


def test_dead_units_and_frozen_parts():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(model[0].bias, -1e4)  # every unit is off: nothing flows into the first layer
    model(torch.randn(16, 4)).square().sum().backward()
    # Of 40 + 18 scalars only the last biases are reached.
    assert gradient_health(model.parameters())["gradient/zero_share"] == pytest.approx(1 - 2 / 58)
    model[0].requires_grad_(False)
    assert gradient_health(model.parameters())["gradient/zero_share"] == pytest.approx(1 - 2 / 18)
