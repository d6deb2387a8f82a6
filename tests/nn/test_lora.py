"""LoRA: nothing changes at the start, only the chosen matrices learn, and merging changes no number."""

import pytest
import torch
from torch import nn

from multiway.nn.lora import Lora, add_lora, merge_lora
from multiway.nn.transformer import Transformer, TransformerConfig


def small() -> Transformer:
    torch.manual_seed(0)
    return Transformer(TransformerConfig(width=16, layers=2, heads=2))


def test_it_begins_as_what_it_changes_and_learns_in_the_chosen_layers_alone() -> None:
    net, tokens = small(), torch.randn(3, 5, 16)
    before, weights = net(tokens), {name: each.clone() for name, each in net.state_dict().items()}
    names = add_lora(net, r"attention", rank=2, alpha=4.0)
    assert names and all("attention" in name for name in names)
    assert torch.equal(net(tokens), before)
    learns = {name for name, each in net.named_parameters() if each.requires_grad}
    assert learns and all(".lora_" in name for name in learns)
    optimiser = torch.optim.SGD([each for each in net.parameters() if each.requires_grad], lr=0.1)
    for _ in range(2):  # `down` has no gradient until `up` has moved
        optimiser.zero_grad()
        net(tokens).square().sum().backward()
        optimiser.step()
    assert not torch.allclose(net(tokens), before)
    after = {
        name.replace("parametrizations.", "").replace(".original", ""): each for name, each in net.state_dict().items()
    }
    assert all(torch.equal(each, after[name]) for name, each in weights.items())


def test_the_change_is_of_low_rank_and_scaled() -> None:
    layer = nn.Linear(8, 6, bias=False)
    own = layer.weight.detach().clone()
    add_lora(nn.ModuleDict({"layer": layer}), "layer", rank=3, alpha=6.0)
    part = layer.parametrizations.weight[0]
    assert isinstance(part, Lora)
    nn.init.normal_(part.lora_up)
    change = (layer.weight - own).detach()
    torch.testing.assert_close(change, 2.0 * part.lora_up @ part.lora_down)
    assert torch.linalg.matrix_rank(change) == 3


def test_merged_it_is_a_plain_module_with_the_same_numbers() -> None:
    net, tokens = small(), torch.randn(2, 4, 16)
    names = list(net.state_dict())
    chosen = add_lora(net, r"\.(up|down)$", rank=2)
    for name, each in net.named_parameters():
        if "lora_up" in name:
            nn.init.normal_(each)
    before = net(tokens)
    assert merge_lora(net) == chosen
    assert list(net.state_dict()) == names or set(net.state_dict()) == set(names)
    torch.testing.assert_close(net(tokens), before)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no linear layer fits"):
        add_lora(small(), "nothing", rank=2)
    with pytest.raises(ValueError, match="expected 1 to 15"):
        add_lora(small(), "attention", rank=16)
