"""Prototypes and DINO's last layer: cosines, rows of length one, and holding still."""

import pytest
import torch
import torch.nn.functional as F

from multiway.nn.prototypes import Prototypes, WeightNormalised


def test_scores_are_cosines() -> None:
    layer, x = Prototypes(6, 4), 3 * torch.randn(5, 6)
    slow = torch.stack([F.cosine_similarity(x, each[None].expand(5, 6)) for each in layer.weight])
    torch.testing.assert_close(layer(x), slow.T)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), layer(x).float()) and layer(x.bfloat16()).dtype == torch.float32


def test_rows_go_back_on_the_sphere() -> None:
    layer = Prototypes(6, 4)
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(4))
    optimiser = torch.optim.SGD(layer.parameters(), lr=5.0)
    layer(torch.randn(8, 6)).square().sum().backward()
    optimiser.step()
    directions = F.normalize(layer.weight.detach(), dim=1)
    assert not torch.allclose(layer.weight.norm(dim=1), torch.ones(4), atol=1e-2)
    layer.normalise()
    torch.testing.assert_close(layer.weight.detach(), directions)


@pytest.mark.parametrize("kind", [Prototypes, WeightNormalised])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_still_layer_does_not_turn_whatever_the_weight_decay(kind, optimiser):
    torch.manual_seed(0)
    layer, x = kind(6, 4), torch.randn(8, 6).requires_grad_()
    choices = {
        "sgd": torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1),
        "adamw": torch.optim.AdamW(layer.parameters(), lr=0.5, weight_decay=0.1),
    }
    before = layer(x).detach()
    for _ in range(3):
        choices[optimiser].zero_grad()
        layer(x, still=True).square().sum().backward()
        assert layer.weight.grad is not None and bool((layer.weight.grad == 0).all())  # none would stop DDP
        choices[optimiser].step()
        if isinstance(layer, Prototypes):
            layer.normalise()
    torch.testing.assert_close(layer(x).detach(), before)
    assert x.grad is not None and bool((x.grad != 0).any())  # what is before the layer learns all the same
    layer(x).square().sum().backward()
    assert bool((layer.weight.grad != 0).any())


def test_weight_normalised_is_torchs_with_gains_of_one() -> None:
    layer = WeightNormalised(6, 4)
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(6, 4, bias=False))
    theirs.parametrizations.weight.original0.data.fill_(1.0)
    theirs.parametrizations.weight.original1.data.copy_(layer.weight.data)
    x = torch.randn(5, 6)
    torch.testing.assert_close(layer(x), theirs(x))
    with torch.no_grad():
        layer.weight.mul_(7.0)
    torch.testing.assert_close(layer(x), theirs(x))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="1 prototypes"):
        Prototypes(4, 1)
