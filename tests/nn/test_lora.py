"""LoRA: nothing changes at the start, only the chosen matrices learn, and merging changes no number."""

import copy

import pytest
import torch
from torch import nn

from multiway.nn.lora import Lora, LowRank
from multiway.nn.multiway_block import MultiwayBlock, MultiwayConfig
from multiway.nn.transformer import Transformer, TransformerConfig


def small() -> Transformer:
    torch.manual_seed(0)
    return Transformer(TransformerConfig(width=16, layers=2, heads=2))


def moved(changes: LowRank) -> LowRank:
    for name, each in changes.named_parameters():
        if name.endswith(".up"):
            nn.init.normal_(each, std=0.3)
    return changes


def test_it_begins_as_what_it_changes_and_learns_in_the_chosen_layers_alone() -> None:
    net, tokens = small(), torch.randn(3, 5, 16)
    before, weights = net(tokens), {name: each.clone() for name, each in net.state_dict().items()}
    changes = LowRank(net, r"attention", rank=2, alpha=4.0)
    assert changes.layers and all("attention" in name for name in changes.layers)
    assert torch.equal(net(tokens), before)
    assert not any(each.requires_grad for each in net.parameters())
    assert {name.rpartition(".")[0] for name, _ in changes.named_parameters()} == set(changes.layers)
    optimiser = torch.optim.SGD(changes.parameters(), lr=0.1)
    for _ in range(2):  # `down` has no gradient until `up` has moved
        optimiser.zero_grad()
        net(tokens).square().sum().backward()
        optimiser.step()
    assert not torch.allclose(net(tokens), before)
    after = net.state_dict()
    assert after.keys() == weights.keys() and all(torch.equal(each, after[name]) for name, each in weights.items())


def test_the_change_is_of_low_rank_and_scaled() -> None:
    layer = nn.Linear(8, 6, bias=False)
    own = layer.weight.detach().clone()
    part = moved(LowRank(nn.ModuleDict({"layer": layer}), "layer", rank=3, alpha=6.0)).get_submodule("layer")
    assert isinstance(part, Lora)
    change = (layer.weight - own).detach()
    torch.testing.assert_close(change, 2.0 * part.up @ part.down)
    assert torch.linalg.matrix_rank(change) == 3


def test_merged_it_is_a_plain_module_with_the_same_numbers() -> None:
    net, tokens = small(), torch.randn(2, 4, 16)
    kinds = {name: type(part) for name, part in net.named_modules()}
    changes = moved(LowRank(net, r"\.(up|down)$", rank=2))
    before = net(tokens)
    changes.merge(net)
    assert torch.equal(net(tokens), before)
    assert {name: type(part) for name, part in net.named_modules()} == kinds
    assert not any("change" in part.__dict__ for part in net.modules())


def test_a_copy_has_changes_of_its_own() -> None:
    pair = nn.ModuleDict({"net": small()})
    pair["changes"] = moved(LowRank(pair["net"], "attention", rank=2))
    twin, tokens = copy.deepcopy(pair), torch.randn(2, 4, 16)
    before = pair["net"](tokens)
    assert torch.equal(twin["net"](tokens), before)
    for each in twin["changes"].parameters():
        nn.init.ones_(each)
    assert torch.equal(pair["net"](tokens), before) and not torch.allclose(twin["net"](tokens), before)


def test_what_is_no_linear_layer_but_multiplies_by_a_matrix_is_changed_too() -> None:
    block = MultiwayBlock(MultiwayConfig(width=16, heads=2), 0)
    changes = moved(LowRank(block, "projection", rank=2))
    assert changes.layers == ["projection.module"]
    tokens, segments = torch.randn(2, 3, 16), (("vision", 3),)
    own = block.projection.module
    stored = own._parameters["weight"]
    for part, rows in (("forward", slice(None)), ("query", slice(16)), ("key_value", slice(16, None))):
        change = (own.weight - stored)[rows]
        assert change.abs().max() > 0.01
        found = block.projection(tokens, segments, part)
        with torch.no_grad():
            kept, weight = stored.clone(), own.weight.clone()
            del own.__dict__["change"]
            own.__dict__["change"] = nn.Identity()
            stored.copy_(weight)
            torch.testing.assert_close(block.projection(tokens, segments, part), found)
            stored.copy_(kept)
            own.__dict__["change"] = changes.get_submodule("projection.module")


def test_names_of_layers_may_be_those_of_attributes() -> None:
    net = nn.ModuleDict({"layers": nn.Linear(4, 4), "inner": nn.Module()})
    net["inner"].add_module("half_", nn.Linear(4, 4))
    net["inner"]._modules["train"] = nn.Linear(4, 4)
    changes = LowRank(net, ".", rank=1)
    assert [name for name, _ in changes.named_parameters()] == [
        f"{layer}.{side}" for layer in changes.layers for side in ("down", "up")
    ]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no linear layer fits 'nothing'; there are: blocks\.0\.attention"):
        LowRank(small(), "nothing", rank=2)
    with pytest.raises(ValueError, match=r"blocks\.0\.attention\.qkv: .*expected 1 to 15"):
        LowRank(small(), "attention", rank=16)
    with pytest.raises(ValueError, match="no regular expression"):
        LowRank(small(), "(", rank=2)
    with pytest.raises(ValueError, match="no linear layer fits"):
        LowRank(small(), "attention", rank=2, skip=lambda name: "attention" in name)


def test_in_half_precision_the_merged_weight_is_the_one_that_was_trained() -> None:
    net, tokens = small(), torch.randn(2, 4, 16)
    changes = moved(LowRank(net, "attention", rank=2))
    with torch.autocast("cpu", torch.bfloat16):
        before = net(tokens)
    changes.merge(net)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(tokens), before)
