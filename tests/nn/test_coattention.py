"""Co-attention against a slow twin, layer by layer, and against plain encoders where nothing crosses."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from peer_weights import randomise
from torch import Tensor

from multiway.nn.block import Block
from multiway.nn.coattention import CoAttention
from multiway.nn.transformer import Transformer, TransformerConfig

Norm = Literal["pre", "post"]
SIZES = TransformerConfig(width=16, layers=3, heads=2, epsilon=1e-5)


def build(norm: Norm = "post", seed: int = 0) -> CoAttention:
    module = randomise(CoAttention(replace(SIZES, norm=norm)), seed)
    assert isinstance(module, CoAttention)
    return module


def inputs(seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    text_mask = torch.arange(6) < torch.tensor([6, 4, 2])[:, None]
    image_mask = torch.arange(5) < torch.tensor([5, 5, 3])[:, None]
    return torch.randn(3, 6, 16), torch.randn(3, 5, 16), text_mask, image_mask


def slow_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """(N, W) and (M, W), one head and one query at a time."""
    out = torch.zeros_like(query)
    size = query.shape[1] // heads
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(query)):
            scores = torch.stack([query[i, part] @ key[j, part] / size**0.5 for j in range(len(key))])
            out[i, part] = (scores.softmax(0)[:, None] * value[:, part]).sum(0)
    return out


def slow_layer(block: Block, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """(N, W) that reads (M, W): self-attention, cross-attention, feed-forward."""

    def part(tokens: Tensor, change, ln: torch.nn.Module) -> Tensor:
        return tokens + change(ln(tokens)) if norm == "pre" else ln(tokens + change(tokens))

    def own(z: Tensor) -> Tensor:
        q, k, v = block.attention.qkv(z).split(16, 1)
        return block.attention.out(slow_attention(q, k, v, 2))

    def other(z: Tensor) -> Tensor:
        assert block.cross is not None
        k, v = block.cross.key_value(y).split(16, 1)
        return block.cross.out(slow_attention(block.cross.query(z), k, v, 2))

    x = part(x, own, block.attention_norm)
    x = part(x, other, block.cross_norm)
    return part(x, lambda z: block.mlp.down(F.gelu(block.mlp.up(z))), block.mlp_norm)


@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.no_grad()
def test_equals_a_slow_twin(norm: Norm) -> None:
    module = build(norm)
    text, image, text_mask, image_mask = inputs()
    words, patches = module(text, image, text_mask, image_mask)
    for row in range(3):
        x, y = text[row, text_mask[row]], image[row, image_mask[row]]  # without padding
        for reader, watcher in zip(module.text.blocks, module.image.blocks, strict=True):
            x, y = slow_layer(reader, x, y, norm), slow_layer(watcher, y, x, norm)
        torch.testing.assert_close(words[row, text_mask[row]], module.text.norm(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(patches[row, image_mask[row]], module.image.norm(y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.no_grad()
def test_what_is_not_wanted_changes_nothing_else(norm: Norm) -> None:
    module = build(norm)
    text, image, text_mask, image_mask = inputs()
    words, patches = module(text, image, text_mask, image_mask)
    alone, none = module(text, image, text_mask, image_mask, wanted="text")
    assert none is None
    assert torch.equal(alone, words)
    first, second = module(text, image, text_mask, image_mask, wanted="class")
    assert first.shape == second.shape == (3, 1, 16)
    torch.testing.assert_close(first[:, 0], words[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second[:, 0], patches[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.no_grad()
def test_without_a_picture_it_is_a_plain_encoder(norm: Norm) -> None:
    module = build(norm)
    text, _, text_mask, _ = inputs()
    plain = Transformer(replace(SIZES, norm=norm)).eval()
    own = plain.state_dict()
    plain.load_state_dict({name: tensor for name, tensor in module.text.state_dict().items() if name in own})
    words, none = module(text, None, text_mask)
    assert none is None
    assert torch.equal(words, plain(text, text_mask))


@torch.no_grad()
def test_crossing_that_adds_nothing_leaves_two_encoders() -> None:
    """Cross-attention whose output is zero, before norms that see nothing new: each stream is its own."""
    module = build("pre")
    for block in [*module.text.blocks, *module.image.blocks]:
        block.cross.out.weight.zero_()
        block.cross.out.bias.zero_()
    text, image, text_mask, image_mask = inputs()
    words, patches = module(text, image, text_mask, image_mask)
    assert torch.equal(words, module(text, image + 1, text_mask, image_mask)[0])
    assert torch.equal(patches, module(text + 1, image, text_mask, image_mask)[1])
    assert torch.equal(words, module(text, None, text_mask)[0])


@torch.no_grad()
def test_padding_changes_nothing_to_the_bit() -> None:
    module = build()
    text, image, text_mask, image_mask = inputs()
    words, patches = module(text, image, text_mask, image_mask)
    text = torch.where(text_mask[..., None], text, 50 * torch.randn_like(text))
    image = torch.where(image_mask[..., None], image, 50 * torch.randn_like(image))
    again, shown = module(text, image, text_mask, image_mask)
    assert torch.equal(again[text_mask], words[text_mask]) and torch.equal(shown[image_mask], patches[image_mask])
    assert not torch.equal(module(text, image)[0][text_mask], words[text_mask])


def test_maps_are_recorded_and_recomputing_changes_no_gradient() -> None:
    module = build()
    text, image, text_mask, _ = inputs()
    record: dict[str, Tensor] = {}
    module(text, image, text_mask, record=record)
    assert record["text.blocks.2.cross"].shape == (3, 2, 6, 5)
    torch.testing.assert_close(record["image.blocks.0.cross"].sum(-1), torch.ones(3, 2, 5))
    gradients = []
    for checkpointed in (False, True):
        module = CoAttention(replace(SIZES, norm="post", dropout=0.2, checkpoint=checkpointed)).train()
        module.load_state_dict(build().state_dict())
        torch.manual_seed(5)
        sum(part.square().sum() for part in module(text, image, text_mask)).backward()
        gradients.append([p.grad for p in module.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
