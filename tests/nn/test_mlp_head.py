"""Heads: the papers' sizes layer by layer, by counting parameters, and DINO's last layer."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from multiway.nn import mlp_head
from multiway.nn.mlp_head import MlpHead, MlpHeadConfig


def shapes(config: MlpHeadConfig, width: int = 2048) -> list[str]:
    with torch.device("meta"):
        head = MlpHead(width, config)
    told = []
    for part in head.layers:
        if isinstance(part, nn.Linear):
            told.append(f"{part.in_features}-{part.out_features}{'' if part.bias is None else ' bias'}")
        elif isinstance(part, nn.BatchNorm1d):
            told.append(f"bn {'' if part.weight is None else 'scale'}{'' if part.bias is None else ' shift'}".strip())
        else:
            told.append(type(part).__name__)
    return told + ([] if head.last is None else [f"unit {tuple(head.last.weight.shape)}"])


def test_the_papers_heads() -> None:
    assert shapes(mlp_head.MOCO_V1) == ["2048-128 bias"]
    assert shapes(mlp_head.MOCO_V2) == ["2048-2048 bias", "ReLU", "2048-128 bias"]
    full = ["2048-2048", "bn scale shift", "ReLU"]
    assert shapes(mlp_head.SIMCLR) == [*full, "2048-128", "bn scale"]
    assert shapes(mlp_head.SIMCLR_V2) == [*full, *full, "2048-128", "bn scale"]
    assert shapes(mlp_head.SWAV) == ["2048-2048 bias", "bn scale shift", "ReLU", "2048-128 bias"]
    assert shapes(mlp_head.BYOL) == ["2048-4096 bias", "bn scale shift", "ReLU", "4096-256"]
    assert shapes(mlp_head.BYOL, 256) == ["256-4096 bias", "bn scale shift", "ReLU", "4096-256"]
    assert shapes(mlp_head.SIMSIAM) == [*full, *full, "2048-2048", "bn"]
    assert shapes(mlp_head.SIMSIAM_PREDICTOR) == ["2048-512", "bn scale shift", "ReLU", "512-2048 bias"]
    vit = ["384-4096", "bn scale shift", "ReLU", "4096-4096", "bn scale shift", "ReLU", "4096-256", "bn"]
    assert shapes(mlp_head.MOCO_V3, 384) == vit
    assert shapes(mlp_head.MOCO_V3_PREDICTOR, 256) == ["256-4096", "bn scale shift", "ReLU", "4096-256", "bn"]
    dino = ["384-2048 bias", "GELU", "2048-2048 bias", "GELU", "2048-256 bias", "unit (65536, 256)"]
    assert shapes(mlp_head.DINO, 384) == dino


def test_output_of_dinos_head_is_a_cosine_with_each_row() -> None:
    head = MlpHead(8, replace(mlp_head.DINO, hidden=16, output=12, bottleneck=6))
    x = torch.randn(5, 8)
    points = torch.nn.functional.normalize(head.layers(x), dim=-1)
    slow = torch.stack([torch.nn.functional.cosine_similarity(points, row[None]) for row in head.last.weight])
    torch.testing.assert_close(head(x), slow.T)
    assert float(head(x).detach().abs().max()) <= 1.0 + 1e-6
    head(x, still=True).sum().backward()
    assert bool((head.last.weight.grad == 0).all()) and bool((head.layers[0].weight.grad != 0).any())


@pytest.mark.parametrize("config", [mlp_head.SIMCLR, replace(mlp_head.MOCO_V2, hidden_norm="layer")])
def test_tokens_are_rows(config):
    head = MlpHead(8, replace(config, output=4))
    tokens = torch.randn(3, 7, 8)
    torch.testing.assert_close(head(tokens).flatten(0, 1), head(tokens.flatten(0, 1)))


def test_widths_of_the_input() -> None:
    head = MlpHead(8, MlpHeadConfig(layers=3, output=0))
    assert head.output == 8 and head(torch.randn(4, 8)).shape == (4, 8)
    with pytest.raises(ValueError, match=r"takes \(\.\.\., 8\)"):
        head(torch.randn(4, 9))
    with pytest.raises(ValueError, match="0 layers"):
        MlpHeadConfig(layers=0)
    with pytest.raises(ValueError, match="output_norm is 'batch'"):
        MlpHeadConfig(output_norm="batch", last="weight-normalised")


def test_configs_survive_json() -> None:
    from multiway.config import from_json, to_json

    for name in mlp_head.__all__:
        config = getattr(mlp_head, name)
        if isinstance(config, MlpHeadConfig):
            assert from_json(MlpHeadConfig, to_json(config)) == config
