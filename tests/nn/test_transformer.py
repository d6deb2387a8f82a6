"""Options of the blocks: each changes what it says, and nothing else."""

from dataclasses import replace

import pytest
import torch
from peer_weights import randomise
from torch.utils.flop_counter import FlopCounterMode

from multiway.nn.block import FeedForward, Residual
from multiway.nn.transformer import Transformer, TransformerConfig, clip_init

TINY = TransformerConfig(width=32, layers=3, heads=2, cross_width=16, cross_layers=(1,))


def test_checkpointing_changes_no_gradient():
    tokens, memory = torch.randn(2, 5, 32), torch.randn(2, 4, 16)
    results = []
    for recompute in (False, True):
        model = randomise(Transformer(replace(TINY, checkpoint=recompute, dropout=0.1))).train()
        torch.manual_seed(0)
        out = model(tokens, memory=memory, at=torch.tensor([4, 1]))
        out.sum().backward()
        results.append([out, *(parameter.grad for parameter in model.parameters())])
    for kept, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(kept, recomputed, atol=0, rtol=0)


def test_record_has_every_state_and_map_and_changes_nothing():
    model = randomise(Transformer(TINY))
    tokens, memory, record = torch.randn(2, 5, 32), torch.randn(2, 4, 16), {}
    out = model(tokens, memory=memory, record=record)
    torch.testing.assert_close(out, model(tokens, memory=memory), atol=1e-5, rtol=1e-5)
    states = {f"blocks.{layer}" for layer in range(3)}
    assert set(record) == {"embedded", "tokens", "blocks.1.cross", *states, *(f"{state}.attention" for state in states)}
    assert record["blocks.1.cross"].shape == (2, 2, 5, 4)
    assert record["tokens"] is out


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_one_position_equals_that_position_of_all(norm):
    model = randomise(Transformer(replace(TINY, norm=norm)))
    tokens, memory, at = torch.randn(2, 5, 32), torch.randn(2, 4, 16), torch.tensor([4, 0])
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    every = model(tokens, mask, memory, causal=True)
    one = model(tokens, mask, memory, causal=True, at=at)
    torch.testing.assert_close(one[:, 0], every[torch.arange(2), at], atol=1e-5, rtol=1e-5)


def test_only_the_named_layers_look_at_the_memory():
    model = Transformer(TINY)
    assert [block.cross is not None for block in model.blocks] == [False, True, False]
    everywhere = Transformer(replace(TINY, cross_layers=None))
    assert all(block.cross is not None for block in everywhere.blocks)


def test_drop_path_drops_rows_and_keeps_the_mean():
    torch.manual_seed(0)
    residual = Residual(TINY, drop_path=0.25)
    change = residual(torch.zeros(4000, 2, 32), torch.ones(4000, 2, 32))
    rows = change.flatten(1)
    assert ((rows == 0).all(1) | (rows == 1 / 0.75).all(1)).all()
    assert abs(float(change.mean()) - 1) < 0.05
    assert torch.equal(residual.eval()(change, change), 2 * change)


def test_drop_path_rises_with_depth():
    model = Transformer(replace(TINY, drop_path=0.2))
    assert [block.mlp_residual.drop_path for block in model.blocks] == pytest.approx([0.0, 0.1, 0.2])


def test_layer_scale_of_zero_is_the_identity():
    model = Transformer(replace(TINY, layer_scale=0.0, final_norm=False))
    tokens = torch.randn(2, 5, 32)
    assert torch.equal(model(tokens), tokens)


def test_activations():
    x = torch.linspace(-4, 4, 101)
    quick = FeedForward(1, 1, "quick_gelu").activation(x)
    torch.testing.assert_close(quick, x * torch.sigmoid(1.702 * x), atol=1e-6, rtol=1e-5)
    exact, tanh = (FeedForward(1, 1, name).activation(x) for name in ("gelu", "gelu_tanh"))
    assert 0 < (exact - tanh).abs().max() < 1e-3 < (exact - quick).abs().max()
    with pytest.raises(ValueError, match="activation 'swish' is unknown; choose one of gelu"):
        FeedForward(1, 1, "swish")


def test_initial_spread():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(width=256, layers=2, heads=2))
    weight = model.blocks[0].attention.qkv.weight
    assert weight.abs().max() <= 0.04
    assert float(weight.detach().std()) == pytest.approx(
        0.02 * 0.88, rel=0.03
    )  # a normal cut at two deviations has 0.88 of it
    clip_init(model)
    block = model.blocks[0]
    spreads = {
        block.attention.qkv: 256**-0.5,
        block.attention.out: 256**-0.5 * 4**-0.5,
        block.mlp.up: 512**-0.5,
        block.mlp.down: 256**-0.5 * 4**-0.5,
    }
    for part, expected in spreads.items():
        assert float(part.weight.detach().std()) == pytest.approx(expected, rel=0.03)


def test_bf16_autocast_stays_close_to_fp32():
    model = Transformer(TransformerConfig(width=64, layers=4, heads=2))
    tokens = torch.randn(2, 9, 64)
    exact = model(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(tokens)
    assert rounded.dtype == torch.float32  # the residual stream and its norms
    assert (rounded - exact).abs().max() < 0.05


def test_rows_may_share_a_memory():
    """Each row names its memory: as if the memories had been laid out row by row, and gradients sum over the sharers."""
    torch.manual_seed(0)
    config = TransformerConfig(width=16, layers=2, heads=2, cross_width=12)
    ours = Transformer(config).double()
    tokens = torch.randn(5, 4, 16, dtype=torch.float64)
    memory = torch.randn(3, 6, 12, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(6) < torch.tensor([[6], [3], [1]])
    rows = torch.tensor([2, 0, 0, 1, 2])
    for checkpointed in (False, True):
        ours.config = replace(config, checkpoint=checkpointed)
        shared = ours(tokens, None, memory, mask, memory_rows=rows)
        (gradient,) = torch.autograd.grad(shared.square().sum(), memory)
        spread = ours(tokens, None, memory[rows], mask[rows])
        (expected,) = torch.autograd.grad(spread.square().sum(), memory)
        torch.testing.assert_close(shared, spread)
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_rows_of_one_text_begin_together_and_are_the_same_as_apart(norm, checkpoint):
    """Results and all gradients, with unequal lengths, of a causal stack too; less is computed."""
    config = replace(TINY, norm=norm, checkpoint=checkpoint, cross_layers=None)
    rows, shown = torch.tensor([0, 1, 1, 0, 2, 0]), torch.tensor([0, 1, 0, 1, 1, 1])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False]])
    for causal in (False, True):
        found = []
        for together in (True, False):
            model = randomise(Transformer(config)).train()
            generator = torch.Generator().manual_seed(1)
            tokens = torch.randn(3, 5, 32, generator=generator).requires_grad_()
            memory = torch.randn(2, 4, 16, generator=generator).requires_grad_()
            more = {"memory_rows": shown, "causal": causal, "at": torch.zeros(6, dtype=torch.int64)}
            given = (tokens, mask) if together else (tokens[rows], mask[rows])
            with FlopCounterMode(display=False) as counter:
                out = model(*given, memory, rows=rows if together else None, **more)
            (out * torch.arange(6)[:, None, None]).sum().backward()
            found.append((out, tokens.grad, memory.grad, *(each.grad for each in model.parameters())))
            found.append(counter.get_total_flops())
        torch.testing.assert_close(found[0], found[2], atol=2e-5, rtol=1e-4)
        assert found[1] < found[3]


def test_rows_of_one_text_are_dropped_out_each_by_itself():
    """With chance in the first block they do not begin together, as they would not apart."""
    model = randomise(Transformer(replace(TINY, dropout=0.3, cross_layers=(2,)))).train()
    tokens, rows = torch.randn(1, 5, 32), torch.zeros(2, dtype=torch.int64)
    record = {}
    model.blocks[0].register_forward_hook(lambda _, args, out: record.update(out=out))
    model(tokens, memory=torch.randn(2, 4, 16), rows=rows)
    assert record["out"].shape[0] == 2 and (record["out"][0] - record["out"][1]).abs().max() > 0.1
    model.eval()
    out = model(tokens, memory=torch.randn(1, 4, 16).expand(2, -1, -1), rows=rows)
    torch.testing.assert_close(out[0], out[1])
