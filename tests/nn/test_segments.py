"""Segment maps: the same result as the transformer, the same maps as its record, and differentiable."""

from typing import Literal

import pytest
import torch
from peer_weights import randomise

from multiway.nn.segments import run_with_segment_maps
from multiway.nn.transformer import Transformer, TransformerConfig


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_transformer_and_its_record(norm: Literal["pre", "post"], masked: bool) -> None:
    config = TransformerConfig(width=16, layers=3, heads=2, norm=norm, layer_scale=0.3 if norm == "pre" else None)
    transformer = randomise(Transformer(config))
    tokens = torch.randn(3, 9, 16)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, 3:5] = masked is False
    mask[2, 2:5] = masked is False
    given = mask if masked else None
    record: dict[str, torch.Tensor] = {}
    wanted = transformer(tokens, given, record=record)
    got, maps = run_with_segment_maps(transformer, tokens, given, 5)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert len(maps) == 3
    for layer, part in enumerate(maps):
        whole = record[f"blocks.{layer}.attention"]
        torch.testing.assert_close(part, whole[:, :, :5, 5:], rtol=1e-5, atol=1e-6)
    for gradient in torch.autograd.grad(got[:, 0].sum(), maps):
        assert gradient[:, :, 0].abs().sum() > 0
