"""Blocks of their own for a memory: as formulas, cached, and which options they refuse; and a picture's convolutions."""

import pytest
import torch
from peer_weights import randomise

from multiway.nn.attention import Visibility
from multiway.nn.block import TransformerConfig
from multiway.nn.cache import Cache
from multiway.nn.conv_stage import ConvStage, ConvStageConfig
from multiway.nn.interleaved import Interleaved

CONFIG = TransformerConfig(width=16, layers=2, heads=2, causal=True, cross_width=12)


@torch.no_grad()
def test_the_stack_is_its_formulas() -> None:
    stack = randomise(Interleaved(CONFIG))
    tokens, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 12)
    x, causal = tokens, Visibility.of(None, 5, tokens.device, causal=True)
    for block, cross in zip(stack.blocks, stack.crosses, strict=True):
        x = x + block.attention(block.attention_norm(x), None, causal)
        x = x + block.mlp(block.mlp_norm(x))
        x = x + cross.attention(cross.norm(x), cross.memory_norm(memory))
        x = x + cross.mlp(cross.mlp_norm(x))
    torch.testing.assert_close(stack(tokens, memory=memory), stack.norm(x))
    at = torch.tensor([4, 0, 2])
    one = stack(tokens, memory=memory, at=at)
    torch.testing.assert_close(one[:, 0], stack.norm(x)[torch.arange(3), at])


@torch.no_grad()
def test_token_by_token_with_a_cache_is_all_at_once() -> None:
    stack = randomise(Interleaved(CONFIG))
    tokens, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 12)
    cache = Cache(2)
    parts = [stack(tokens[:, :2], memory=memory, cache=cache)]
    parts += [stack(tokens[:, i : i + 1], cache=cache) for i in range(2, 5)]
    torch.testing.assert_close(torch.cat(parts, 1), stack(tokens, memory=memory))


def test_what_it_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="norm='pre'"):
        Interleaved(TransformerConfig(norm="post"))


@torch.no_grad()
@pytest.mark.parametrize(
    "config",
    [
        ConvStageConfig(32, 8),
        ConvStageConfig(32, 8, convolve=False),
        ConvStageConfig(32, 16, depths=(1, 1, 1)),
    ],
    ids=["stem", "patches", "resnet"],
)
def test_a_convolutional_stage_gives_a_token_for_each_place(config: ConvStageConfig) -> None:
    stage = randomise(ConvStage(config, 24))
    images = torch.randn(2, 3, 32, 32)
    tokens = stage(images)
    assert tokens.shape == (2, (32 // config.patch) ** 2, 24)
    # A change in one corner reaches the far one only through convolutions.
    other = images.clone()
    other[:, :, :2, :2] += 3
    moved = (stage(other) - tokens).abs().amax((0, 2)) > 1e-6
    assert bool(moved[0]) and (config.depths or not bool(moved[-1]))
    assert stage(torch.randn(1, 3, 64, 64)).shape[1] == 4 * tokens.shape[1]
