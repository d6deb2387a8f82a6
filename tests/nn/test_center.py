"""The centre: a moving average of means, moved once a step."""

import pytest
import torch

from multiway.nn.center import Center, mean_outputs
from multiway.world import World


def test_follows_the_mean_of_all_views_and_rows() -> None:
    center, outputs = Center(5, 0.9), [torch.randn(4, 5), torch.randn(4, 5)]
    value = torch.zeros(5)
    for _ in range(3):
        center.follow(mean_outputs(outputs, World()))
        value = 0.9 * value + 0.1 * torch.cat(outputs).mean(0)
    torch.testing.assert_close(center.value, value)
    assert torch.equal(center.state_dict()["value"], center.value) and not list(center.parameters())


def test_micro_batches_laid_end_to_end_are_one_batch() -> None:
    whole, parts = Center(3), Center(3)
    outputs = torch.randn(8, 3)
    whole.follow(mean_outputs([outputs], World()))
    parts.follow(torch.cat([mean_outputs([outputs[:4]], World()), mean_outputs([outputs[4:]], World())]))
    torch.testing.assert_close(whole.value, parts.value)


def test_tokens_nothing_and_refusals() -> None:
    tokens = torch.randn(2, 7, 3, requires_grad=True)
    collected = mean_outputs([tokens], World())
    torch.testing.assert_close(collected, tokens.detach().mean((0, 1))[None])
    assert not collected.requires_grad
    center = Center(3)
    center.follow(collected)
    before = center.value.clone()
    center.follow(mean_outputs([torch.empty(0, 3)], World()))
    assert torch.equal(center.value, before)
    with pytest.raises(ValueError, match="momentum is 2"):
        Center(3, 2.0)
