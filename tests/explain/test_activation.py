"""Grad-CAM of a feature map: of a linear toy it is known in closed form."""

import pytest
import torch

from multiway.explain.activation import activation_map, feature_norms


def test_of_a_mean_pool_and_a_linear_score() -> None:
    """S = w . mean(A): dS/dA = w / Z everywhere, so that the map is relu(sum_k w_k A_k) / Z."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 3, 4, generator=generator, requires_grad=True)
    weights = torch.randn(5, generator=generator)
    found = activation_map(features, features.mean((2, 3)) @ weights)
    expected = (weights[:, None, None] * features.detach()).sum(1).clamp(min=0) / 12
    torch.testing.assert_close(found, expected)
    assert (found > 0).any() and (found == 0).any() and not found.requires_grad


def test_a_score_of_something_else_is_refused() -> None:
    features = torch.randn(1, 2, 2, 2, requires_grad=True)
    with pytest.raises(ValueError, match="does not depend"):
        activation_map(features, torch.ones(1, requires_grad=True) * 2)


def test_norms() -> None:
    features = torch.zeros(1, 2, 2, 2)
    features[0, :, 1, 0] = torch.tensor([3.0, 4.0])
    assert feature_norms(features).tolist() == [[[0, 0], [5, 0]]]
