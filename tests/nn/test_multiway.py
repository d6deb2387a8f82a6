"""Multiway blocks: routing, what experts share, and relative positions."""

import pytest
import torch
from torch import Tensor

from multiway.nn.attention import Visibility
from multiway.nn.multiway import Multiway, MultiwayConfig
from multiway.nn.relative import RelativePositions
from multiway.nn.transformer import Transformer, TransformerConfig

CONFIG = MultiwayConfig(width=24, layers=3, heads=2, fusion_layers=1, layer_scale=0.3)
PAIR = (("language", 5), ("vision", 7))


def build(config: MultiwayConfig = CONFIG, seed: int = 0) -> Multiway:
    """With every number away from its start, so that none can hide."""
    torch.manual_seed(seed)
    blocks = Multiway(config).eval()
    for parameter in blocks.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return blocks


def tokens(length: int = 12) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, length, 24)


def equal_experts(blocks: Multiway) -> Multiway:
    """Every expert gets the weights of the first."""
    for name, parameter in list(blocks.named_parameters()):
        before, found, after = name.partition(".experts.")
        if found:
            first = before + found + "language" + after[after.index(".") :]
            parameter.data.copy_(dict(blocks.named_parameters())[first].data)
    return blocks


def test_equal_experts_are_one_feed_forward_part() -> None:
    blocks = equal_experts(build())
    x = tokens()
    routed = blocks(x, PAIR)
    assert torch.equal(routed, blocks(x, (("vision", 3), ("language", 9))))
    top = blocks(blocks(x, PAIR, stop=blocks.top), (("fusion", 12),), start=blocks.top)
    torch.testing.assert_close(routed, top, rtol=0, atol=1e-6)


@pytest.mark.parametrize("key_bias", [True, False])
def test_one_expert_is_a_plain_transformer(key_bias: bool) -> None:
    mine = build(MultiwayConfig(width=24, layers=2, heads=3, experts=("shared",), key_bias=key_bias))
    plain = Transformer(TransformerConfig(width=24, layers=2, heads=3, epsilon=1e-6)).eval()
    for own, other in zip(mine.blocks, plain.blocks, strict=True):
        other.attention_norm.load_state_dict(own.attention_norm.module.state_dict())
        projection = own.projection.module
        other.attention.qkv.weight.data = projection.weight.data
        other.attention.qkv.bias.data = projection._bias().data
        other.attention.out.load_state_dict(own.out.module.state_dict())
        other.mlp_norm.load_state_dict(own.mlp_norm.experts["shared"].state_dict())
        other.mlp.load_state_dict(own.mlp.experts["shared"].state_dict())
    plain.norm.load_state_dict(mine.norm.module.state_dict())
    mask = torch.arange(12)[None] < torch.tensor([12, 9, 4])[:, None]
    seen = Visibility.of(mask, 12, mask.device)
    torch.testing.assert_close(mine(tokens(), (("shared", 12),), seen), plain(tokens(), mask), rtol=0, atol=1e-5)


def test_a_bias_on_keys_is_seen_by_nobody() -> None:
    """Why BEiT leaves it out."""
    blocks = build(MultiwayConfig(width=24, layers=2, heads=3, experts=("shared",), key_bias=True))
    before = blocks(tokens(), (("shared", 12),))
    for block in blocks.blocks:
        block.projection.module.key_bias.data += torch.randn(24)
    torch.testing.assert_close(blocks(tokens(), (("shared", 12),)), before, rtol=0, atol=1e-5)


def test_decoupled_attention_with_equal_experts_is_shared_attention() -> None:
    apart = equal_experts(build(MultiwayConfig(width=24, layers=2, heads=2, attention="decoupled", sub_norm=True)))
    shared = build(MultiwayConfig(width=24, layers=2, heads=2, sub_norm=True), seed=5)
    given = apart.state_dict()
    for name in shared.state_dict():
        shared.state_dict()[name].copy_(given[name.replace(".module.", ".experts.language.")])
    torch.testing.assert_close(apart(tokens(), PAIR), shared(tokens(), PAIR), rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ["shared", "decoupled"])
def test_a_modality_alone_does_not_know_the_other_experts(attention: str) -> None:
    """To the bit: what must not be seen changes nothing."""
    blocks = build(MultiwayConfig(width=24, layers=3, heads=2, attention=attention))
    x = tokens(5)
    before = blocks(x, (("language", 5),))
    for name, parameter in blocks.named_parameters():
        if ".vision." in name:
            parameter.data.normal_()
    assert torch.equal(blocks(x, (("language", 5),)), before)
    assert not torch.equal(blocks(x, (("vision", 5),)), before)


def test_tokens_go_to_the_expert_of_their_segment() -> None:
    """Where nothing is mixed by attention, only the segment whose expert changed changes."""
    blocks = build(MultiwayConfig(width=24, layers=1, heads=2))
    seen = Visibility(torch.eye(12, dtype=torch.bool))
    before = blocks(tokens(), PAIR, seen)
    for parameter in blocks.blocks[0].mlp.experts["vision"].parameters():
        parameter.data.normal_()
    after = blocks(tokens(), PAIR, seen)
    assert torch.equal(after[:, :5], before[:, :5]) and not torch.isclose(after[:, 5:], before[:, 5:]).any(-1).all()


def test_the_first_token_alone_is_the_same_first_token() -> None:
    for config in (CONFIG, MultiwayConfig(width=24, layers=2, heads=2, attention="decoupled", sub_norm=True)):
        blocks = build(config)
        bias = torch.randn(config.layers, 1, 2, 12, 12)
        mask = torch.arange(12)[None] < torch.tensor([12, 9, 8])[:, None]
        options = {"visibility": Visibility.of(mask, 12, mask.device), "bias": bias}
        whole, first = blocks(tokens(), PAIR, **options), blocks(tokens(), PAIR, first=True, **options)
        torch.testing.assert_close(first, whole[:, :1], rtol=0, atol=1e-5)


def test_running_in_two_parts_is_running_at_once() -> None:
    blocks = build()
    whole = blocks(tokens(), PAIR)
    assert torch.equal(blocks(blocks(tokens(), PAIR, stop=1), PAIR, start=1), whole)


def test_recomputed_blocks_give_the_same_gradients() -> None:
    gradients = []
    for again in (False, True):
        blocks = build(MultiwayConfig(width=24, layers=2, heads=2, checkpoint=again)).train()
        blocks(tokens(), PAIR).square().sum().backward()
        gradients.append([p.grad for p in blocks.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_segments_must_fit_and_have_experts() -> None:
    with pytest.raises(ValueError, match="add up"):
        build()(tokens(), (("language", 5),))
    with pytest.raises(KeyError, match="no expert for `sound`"):
        build()(tokens(), (("sound", 12),))
    with pytest.raises(ValueError, match="decoupled"):
        MultiwayConfig(attention="decoupled", fusion_layers=1)


# --- relative positions ----------------------------------------------------------------------------------------------


def relative(grid: tuple[int, int] = (3, 4), context: int = 9) -> RelativePositions:
    torch.manual_seed(2)
    positions = RelativePositions(2, 3, grid, context)
    torch.nn.init.normal_(positions.table)
    return positions


def test_image_biases_depend_on_the_displacement_alone() -> None:
    bias = relative().image().detach()[1, 0, 2]
    seen: dict[tuple[int, int], float] = {}
    places = [(row, column) for row in range(3) for column in range(4)]
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            apart = (row - other_row, column - other_column)
            assert seen.setdefault(apart, float(bias[1 + i, 1 + j])) == float(bias[1 + i, 1 + j])
    assert len(set(seen.values())) == len(seen) == 5 * 7
    assert len(bias[0, 1:].unique()) == len(bias[1:, 0].unique()) == 1
    assert len({float(bias[0, 0]), float(bias[0, 1]), float(bias[1, 0])}) == 3


def test_text_biases_do_not_depend_on_the_length() -> None:
    positions = relative()
    assert torch.equal(positions.text(9)[..., :6, :6], positions.text(6))
    inner = positions.text(9)[0, 0, 0, 1:, 1:]
    assert torch.equal(inner[:-1, :-1], inner[1:, 1:]) and len(inner.unique()) == 15
    with pytest.raises(ValueError, match="context of 9"):
        positions.text(10)


def test_pairs_are_made_of_both_and_one_number_each_way() -> None:
    positions = relative()
    pair = positions.pair(6)
    assert pair.shape == (2, 1, 3, 19, 19)
    assert torch.equal(pair[..., :6, :6], positions.text(6)) and torch.equal(pair[..., 6:, 6:], positions.image())
    assert len(pair[1, 0, 2, :6, 6:].unique()) == len(pair[1, 0, 2, 6:, :6].unique()) == 1
    used = set(torch.cat([p.flatten() for p in (pair, positions.text(9))]).tolist())
    assert set(positions.table.flatten().tolist()) == used  # no entry is for nothing


def test_another_grid_interpolates() -> None:
    positions = relative((3, 3))
    assert positions.image((5, 5)).shape == (2, 1, 3, 26, 26)
    with torch.no_grad():
        positions.table.fill_(0.25)
    assert torch.allclose(positions.image((5, 4)), torch.tensor(0.25), atol=1e-5)
