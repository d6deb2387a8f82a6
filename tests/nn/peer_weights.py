"""Weights of tiny random models of `transformers`, copied into ours: which of theirs is which of ours."""

import torch
from torch import nn

from multiway.nn.attention import Attention
from multiway.nn.block import Block


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random everything, norms and biases too, so that no part can be missing unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
        for part in module.modules():
            if isinstance(part, nn.LayerNorm | nn.BatchNorm2d):
                part.weight.add_(1.0)
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.copy_(torch.randn(part.num_features, generator=generator) * 0.1)
                part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
    return module.eval()


def copy(ours: nn.Module, theirs: nn.Module) -> None:
    """All tensors of a linear map or norm; a missing bias on either side is an error."""
    ours.load_state_dict(theirs.state_dict())


def copy_merged(ours: nn.Linear, *theirs: nn.Linear) -> None:
    """Several linear maps, stacked."""
    with torch.no_grad():
        ours.weight.copy_(torch.cat([each.weight for each in theirs]))
        ours.bias.copy_(torch.cat([each.bias for each in theirs]))


def copy_attention(ours: Attention, query: nn.Linear, key: nn.Linear, value: nn.Linear, out: nn.Linear) -> None:
    """Separate projections into merged ones."""
    if ours.crosses:
        copy(ours.query, query)
        copy_merged(ours.key_value, key, value)
    else:
        copy_merged(ours.qkv, query, key, value)
    copy(ours.out, out)


def copy_clip_block(ours: Block, theirs: nn.Module) -> None:
    """A layer of CLIPEncoder."""
    attention = theirs.self_attn
    copy_attention(ours.attention, attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
    copy(ours.attention_norm, theirs.layer_norm1)
    copy(ours.mlp_norm, theirs.layer_norm2)
    copy(ours.mlp.up, theirs.mlp.fc1)
    copy(ours.mlp.down, theirs.mlp.fc2)


def copy_bert_block(ours: Block, theirs: nn.Module) -> None:
    """A layer of BertEncoder, with attention over a memory where it has one."""
    pairs = [(ours.attention, ours.attention_norm, theirs.attention)]
    if ours.cross is not None:
        pairs.append((ours.cross, ours.cross_norm, theirs.crossattention))
    for attention, norm, their in pairs:
        inner = their.self
        copy_attention(attention, inner.query, inner.key, inner.value, their.output.dense)
        copy(norm, their.output.LayerNorm)
    copy(ours.mlp.up, theirs.intermediate.dense)
    copy(ours.mlp.down, theirs.output.dense)
    copy(ours.mlp_norm, theirs.output.LayerNorm)
