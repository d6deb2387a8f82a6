"""The pooler equals SigLIP's head and torch's own attention with CoCa's norms, and sees no padding."""

import pytest
import torch
from peer_weights import copy, randomise
from torch import nn
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead

from multiway.nn.pooler import AttentionalPooler


def _copy_torch_attention(ours: AttentionalPooler, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        ours.attention.query.bias.copy_(theirs.in_proj_bias[: ours.width])
        ours.attention.key_value.bias.copy_(theirs.in_proj_bias[ours.width :])
        if theirs.in_proj_weight is not None:
            query, keys = theirs.in_proj_weight.split([ours.width, 2 * ours.width])
        else:
            query, keys = theirs.q_proj_weight, torch.cat([theirs.k_proj_weight, theirs.v_proj_weight])
        ours.attention.query.weight.copy_(query)
        ours.attention.key_value.weight.copy_(keys)
    copy(ours.attention.out, theirs.out_proj)


@torch.no_grad()
def test_equals_siglips_head() -> None:
    config = SiglipVisionConfig(hidden_size=24, num_attention_heads=3, intermediate_size=40)
    theirs = randomise(SiglipMultiheadAttentionPoolingHead(config))
    ours = AttentionalPooler(
        24, 1, 3, mlp=40, activation="gelu_tanh", query_norm=False, memory_norm=False, epsilon=config.layer_norm_eps
    ).eval()
    ours.queries.copy_(theirs.probe[0])
    _copy_torch_attention(ours, theirs.attention)
    copy(ours.mlp_norm, theirs.layernorm)
    copy(ours.mlp.up, theirs.mlp.fc1)
    copy(ours.mlp.down, theirs.mlp.fc2)
    tokens = torch.randn(5, 9, 24)
    assert (ours(tokens)[:, 0] - theirs(tokens)).abs().max() < 1e-5


class OpenClipPooler(nn.Module):
    """CoCa's pooler written with torch's own attention: the layout in which `open_clip` stores it."""

    def __init__(self, width: int, memory: int, heads: int, queries: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(queries, width))
        self.attn = nn.MultiheadAttention(width, heads, kdim=memory, vdim=memory, batch_first=True)
        self.ln_q, self.ln_k = nn.LayerNorm(width), nn.LayerNorm(memory)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        memory = self.ln_k(tokens)
        query = self.ln_q(self.query)[None].expand(len(tokens), -1, -1)
        return self.attn(query, memory, memory, key_padding_mask=None if mask is None else ~mask, need_weights=False)[0]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("grad", [False, True])  # another kernel is chosen where a gradient flows
def test_equals_torchs_attention_in_cocas_layout(masked: bool, grad: bool) -> None:
    theirs = randomise(OpenClipPooler(16, 24, 2, queries=4))
    ours = AttentionalPooler(16, 4, 2, 24).eval()
    with torch.no_grad():
        ours.queries.copy_(theirs.query)
    _copy_torch_attention(ours, theirs.attn)
    copy(ours.query_norm, theirs.ln_q)
    copy(ours.memory_norm, theirs.ln_k)
    tokens = torch.randn(3, 7, 24)
    mask = torch.arange(7) < torch.tensor([7, 4, 1])[:, None] if masked else None
    with torch.set_grad_enabled(grad):
        assert (ours(tokens, mask) - theirs(tokens, mask)).abs().max() < 1e-5


@torch.no_grad()
def test_a_pooler_reads_another_pooler() -> None:
    many = randomise(AttentionalPooler(16, 6, 2, 24))
    one = randomise(AttentionalPooler(8, 1, 2, many.width, output_norm=True), seed=1)
    tokens = torch.randn(3, 7, 24)
    pooled = one(many(tokens))
    assert pooled.shape == (3, 1, 8)
    # The order of what is read does not matter, its content does.
    assert torch.allclose(one(many(tokens[:, torch.randperm(7)])), pooled, atol=1e-5)
    assert (one(many(tokens.roll(1, 0))) - pooled).abs().max() > 1e-3


@torch.no_grad()
def test_padding_changes_nothing_to_the_bit() -> None:
    pooler = randomise(AttentionalPooler(16, 3, 2, 24, mlp=32))
    tokens = torch.randn(2, 7, 24)
    mask = torch.arange(7) < torch.tensor([5, 3])[:, None]
    other = torch.where(mask[..., None], tokens, torch.randn(2, 7, 24) * 100)
    assert torch.equal(pooler(tokens, mask), pooler(other, mask))
    assert not torch.equal(pooler(tokens), pooler(other))


def test_maps_can_be_recorded_and_sum_to_one() -> None:
    pooler = randomise(AttentionalPooler(16, 3, 2))
    record: dict[str, torch.Tensor] = {}
    pooled = pooler(torch.randn(2, 7, 16), record=record, path="map")
    assert record["map"].shape == (2, 2, 3, 7)
    assert torch.allclose(record["map"].sum(-1), torch.ones(2, 2, 3))
    pooled.sum().backward()
    assert pooler.queries.grad is not None and pooler.queries.grad.abs().max() > 0


def test_a_pooler_without_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="0 queries"):
        AttentionalPooler(16, 0, 2)
