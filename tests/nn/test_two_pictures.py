"""Blocks for two pictures: against transformers' BERT layers, against slow twins, and against the block for one picture."""

from dataclasses import replace

import pytest
import torch
from peer_weights import copy_bert_block, randomise
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from multiway.nn.transformer import Transformer, TransformerConfig
from multiway.nn.two_pictures import DoubledBlocks, MergedCross

PRE = TransformerConfig(width=32, layers=3, heads=2, cross_width=24)
BERT = replace(PRE, norm="post", epsilon=1e-12)
CONFIGS = pytest.mark.parametrize("config", [PRE, BERT], ids=["pre-norm", "post-norm"])
KINDS = pytest.mark.parametrize("kind", [DoubledBlocks, MergedCross])
MASK = torch.arange(6) < torch.tensor([[6], [4], [5]])


def trained(config: TransformerConfig = PRE) -> Transformer:
    """A transformer for one picture; its numbers are as random as anything that was learned."""
    return randomise(Transformer(config))  # type: ignore[return-value]


def inputs(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """(3, 6, 32) of texts, and (3, 5, 24) of pictures twice."""
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(3, *shape, generator=draw) for shape in ((6, 32), (5, 24), (5, 24)))  # type: ignore[return-value]


def gap(ours: Tensor, theirs: Tensor) -> float:
    """At real tokens."""
    return (ours - theirs)[MASK].abs().max().item()


# --- doubled (ALBEF) -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_doubled_blocks_are_berts_layers_over_the_pictures_by_turns() -> None:
    """The released code runs one BERT of twice as many layers, whose layer i attends to picture i mod 2."""
    sizes = dict(vocab_size=9, hidden_size=32, num_attention_heads=2, intermediate_size=128, num_hidden_layers=6)
    config = BertConfig(**sizes, is_decoder=True, add_cross_attention=True, attn_implementation="eager")
    peer = BertModel(config, add_pooling_layer=False)
    for number, layer in enumerate(peer.encoder.layer):
        inner = layer.crossattention.self
        inner.key, inner.value = nn.Linear(24, 32), nn.Linear(24, 32)
        if number % 2:  # shared in each pair
            inner.key, inner.value = (
                getattr(peer.encoder.layer[number - 1].crossattention.self, x) for x in ("key", "value")
            )
    randomise(peer)

    one = Transformer(BERT).eval()
    spare = Transformer(
        BERT
    ).eval()  # whole blocks, to receive the peer's; the second ones lack a projection of their own
    for number, layer in enumerate(peer.encoder.layer):
        copy_bert_block((one, spare)[number % 2].blocks[number // 2], layer)
    two = DoubledBlocks(spare).eval()

    tokens, left, right = inputs()
    hidden = tokens
    visible = torch.zeros(3, 1, 1, 6).masked_fill(~MASK[:, None, None], torch.finfo(torch.float32).min)
    for number, layer in enumerate(peer.encoder.layer):
        hidden = layer(hidden, visible, encoder_hidden_states=(left, right)[number % 2])
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    assert gap(two(one, tokens, MASK, left, right), hidden) < 1e-5


@CONFIGS
@torch.no_grad()
def test_doubled_at_first_is_every_block_twice(config: TransformerConfig) -> None:
    one, (tokens, left, right) = trained(config), inputs()
    slow = tokens
    for number in range(len(MASK)):  # each text alone, without padding
        length = int(MASK[number].sum())
        row = tokens[number : number + 1, :length]
        for block in one.blocks:
            for picture in (left, right):
                row = block(row, picture[number : number + 1])
        slow = slow.clone()
        slow[number, :length] = one.norm(row)[0]
    assert gap(DoubledBlocks(one).eval()(one, tokens, MASK, left, right), slow) < 1e-4


@torch.no_grad()
def test_doubled_with_second_blocks_that_add_nothing_is_the_single_one() -> None:
    one, (tokens, left, right) = trained(), inputs()
    two = DoubledBlocks(one).eval()
    for block in two.blocks:
        for last in (block.attention.out, block.cross.out, block.mlp.down):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    assert torch.equal(two(one, tokens, MASK, left, right), one(tokens, MASK, left))


def test_doubled_adds_its_blocks_without_keys_and_values() -> None:
    one = trained()
    two = DoubledBlocks(one)
    added, there = ({id(p) for p in module.parameters()} for module in (two, one))
    assert not added & there
    key_value = 24 * 64 + 64
    count = sum(p.numel() for p in two.parameters())
    assert count == sum(p.numel() for p in one.blocks.parameters()) - 3 * key_value
    assert not any("key_value" in name for name in two.state_dict())


def test_the_papers_doubled_size() -> None:
    """Six blocks of BERT-base doubled: 18 layers, of which 6 have no key and value projections of their own."""
    config = TransformerConfig(width=768, layers=6, heads=12, norm="post", cross_width=768)
    with torch.device("meta"):
        two = DoubledBlocks(Transformer(config))
    attention, norm = 4 * (768**2 + 768), 2 * 768
    block = 2 * attention + 3 * norm + (768 * 3072 + 3072) + (3072 * 768 + 768)
    assert sum(p.numel() for p in two.parameters()) == 6 * (block - 2 * (768**2 + 768))


# --- merged (BLIP) ---------------------------------------------------------------------------------------------------------


@CONFIGS
@torch.no_grad()
def test_merged_at_first_reads_equal_pictures_as_one(config: TransformerConfig) -> None:
    one, (tokens, left, right) = trained(config), inputs()
    two = MergedCross(one).eval()
    assert gap(two(one, tokens, MASK, left, left), one(tokens, MASK, left)) < 1e-5
    assert gap(two(one, tokens, MASK, left, right), one(tokens, MASK, left)) > 1e-2
    # Nothing is known of sides yet.
    assert gap(two(one, tokens, MASK, left, right), two(one, tokens, MASK, right, left)) < 1e-5


@CONFIGS
@torch.no_grad()
def test_merged_is_the_formula(config: TransformerConfig) -> None:
    one, (tokens, left, right) = trained(config), inputs()
    two = randomise(MergedCross(one), seed=3)
    assert set(two.merge) == {"1", "2"}  # the upper half of three
    for number in range(3):
        length = int(MASK[number].sum())
        x, (a, b) = tokens[number : number + 1, :length], (each[number : number + 1] for each in (left, right))
        for layer, block in enumerate(one.blocks):
            # The part that comes before and those that come after, of a block whose own cross-attention is left out.
            x = block._part(x, block.attention, block.attention_norm, block.attention_residual)
            normed = block.cross_norm(x) if block.pre else x
            both = block.cross(normed, a), two.cross[layer](normed, b)
            change = (both[0] + both[1]) / 2
            if layer >= 1:
                merge = two.merge[str(layer)]
                change = both[0] @ merge.weight[:, :32].T + both[1] @ merge.weight[:, 32:].T + merge.bias
            x = x + change if block.pre else block.cross_norm(x + change)
            x = block._part(x, block.mlp, block.mlp_norm, block.mlp_residual)
        ours = two(one, tokens, MASK, left, right)[number, :length]
        torch.testing.assert_close(ours, one.norm(x)[0], rtol=1e-4, atol=1e-5)


def test_merged_adds_cross_attentions_and_the_upper_halfs_maps() -> None:
    one = trained()
    two = MergedCross(one)
    assert not {id(p) for p in two.parameters()} & {id(p) for p in one.parameters()}
    cross = 2 * (32 * 32 + 32) + 24 * 64 + 64
    assert sum(p.numel() for p in two.parameters()) == 3 * cross + 2 * (64 * 32 + 32)


# --- either ----------------------------------------------------------------------------------------------------------------


@KINDS
@CONFIGS
@torch.no_grad()
def test_either_picture_and_their_order_matter_once_learned(kind: type, config: TransformerConfig) -> None:
    one, (tokens, left, right) = trained(config), inputs()
    two = randomise(kind(one), seed=3)
    read = two(one, tokens, MASK, left, right)
    assert gap(read, two(one, tokens, MASK, left, right.roll(1, 0))) > 1e-2
    assert gap(read, two(one, tokens, MASK, left.roll(1, 0), right)) > 1e-2
    assert gap(read, two(one, tokens, MASK, right, left)) > 1e-2


@KINDS
@torch.no_grad()
def test_rows_padding_and_wanted_positions(kind: type) -> None:
    one, (tokens, left, right) = trained(), inputs()
    two = randomise(kind(one), seed=3)
    read = two(one, tokens, MASK, left, right)
    scribbled = torch.where(MASK[..., None], tokens, 9.0)
    assert gap(two(one, scribbled, MASK, left, right), read) < 1e-5
    first = two(one, tokens, MASK, left, right, at=torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(first[:, 0], read[:, 0], rtol=1e-4, atol=1e-5)
    alone = two(one, tokens[1:2], MASK[1:2], left[1:2], right[1:2])
    torch.testing.assert_close(alone[0][MASK[1]], read[1][MASK[1]], rtol=1e-4, atol=1e-5)


@KINDS
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_reach_everything(kind: type, recompute: bool) -> None:
    one, (tokens, left, right) = trained(replace(PRE, checkpoint=recompute)).train(), inputs()
    two = randomise(kind(one), seed=3).train()
    pictures = left.requires_grad_(), right.requires_grad_()
    two(one, tokens, MASK, *pictures)[MASK].square().sum().backward()
    for name, parameter in [*one.named_parameters(), *two.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert all(each.grad.abs().sum() > 0 for each in pictures)


@KINDS
def test_recomputing_changes_no_gradient(kind: type) -> None:
    found = []
    for recompute in (False, True):
        one, (tokens, left, right) = trained(replace(PRE, checkpoint=recompute)).train(), inputs()
        two = randomise(kind(one), seed=3).train()
        two(one, tokens, MASK, left, right)[MASK].square().sum().backward()
        found.append([p.grad for p in (*one.parameters(), *two.parameters())])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)


@KINDS
def test_what_cannot_be_read_is_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="blocks 0, 2 attend to no picture"):
        kind(Transformer(replace(PRE, cross_layers=(1,))))
    with pytest.raises(ValueError, match="blocks 0, 1, 2"):
        kind(Transformer(replace(PRE, cross_width=None)))
    one, (tokens, left, right) = trained(), inputs()
    with pytest.raises(ValueError, match="3 texts with 3 left and 1 right"):
        kind(one)(one, tokens, MASK, left, right[:1])
