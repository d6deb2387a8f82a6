"""What is found in methods of every kind by watching them encode one picture."""

import pytest
import torch

from multiway.abilities import LacksAbility
from multiway.batch import DataInfo
from multiway.explain.attention import grid_of
from multiway.explain.seen import see
from multiway.methods.bert import Bert, BertConfig
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.dino import Dino, DinoConfig
from multiway.methods.simclr import SimClr, SimClrConfig
from multiway.methods.vilt import Vilt, ViltConfig
from multiway.methods.vlmo import Vlmo, VlmoConfig
from multiway.nn.backbone import VIT_TINY
from multiway.nn.resnet import ResNetConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

DATA = DataInfo(vocabulary=300, context=16, special={"bos": 1, "eos": 2, "pad": 0, "mask": 3, "cls": 1, "sep": 2})
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def dino() -> Dino:
    torch.manual_seed(0)
    return Dino(DinoConfig(backbone=VisionConfig(size=32, patch=8, width=32, layers=3, heads=2))).eval()


def test_attention_is_what_was_computed() -> None:
    method = dino()
    with torch.no_grad():  # away from the start, where attention is even
        for part in method.backbone.parameters():
            part.add_(0.2 * torch.randn_like(part))
    seen = see(method, IMAGES)
    record: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        method.backbone(IMAGES, record=record)
    assert len(seen.blocks) == 3 and seen.features is None and seen.cuts
    for number, block in enumerate(seen.blocks):
        torch.testing.assert_close(block, record[f"blocks.{number}.attention"])
        torch.testing.assert_close(block.sum(-1), torch.ones(2, 2, 17))
    with torch.no_grad():  # the fused kernels agree with the written-out one
        torch.testing.assert_close(seen.encoded.embedding, method.encode_image(IMAGES).embedding, atol=1e-5, rtol=1e-4)
    # Of the student, not of the twin that has the same parts.
    assert torch.equal(seen.positions, method.backbone.positions)
    assert torch.equal(seen.filters.flatten(1), method.backbone.patches.project.weight)


def test_watching_leaves_nothing_behind_and_gradients_flow() -> None:
    method = dino().requires_grad_(False)
    see(method, IMAGES)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in method.modules())
    seen = see(method, IMAGES, graph=True)
    gradient = torch.autograd.grad(seen.encoded.embedding[:, 0].sum(), [seen.blocks[-1]])[0]
    assert gradient[:, :, 0].abs().sum() > 0 and gradient[:, :, 1:].abs().sum() == 0  # only the class token is read

    def broken(images: torch.Tensor) -> None:
        method.backbone(images)
        raise RuntimeError("in the middle")

    method.encode_image = broken
    with pytest.raises(RuntimeError, match="in the middle"):
        see(method, IMAGES)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in method.modules())


def test_a_residual_network_has_a_feature_map_and_filters() -> None:
    torch.manual_seed(0)
    config = ResNetConfig(depths=(1, 1, 1, 1), base=4, stem="cifar")
    method = SimClr(SimClrConfig(backbone=config)).eval()
    seen = see(method, IMAGES)
    assert not seen.attends and seen.positions is None and not seen.cuts
    assert seen.features.shape == (2, 32, 4, 4) and seen.filters.shape == (4, 3, 3, 3)
    pooled = torch.nn.functional.normalize(seen.features.mean((2, 3)), dim=-1)
    torch.testing.assert_close(pooled, seen.encoded.embedding)


def test_a_stem_of_convolutions_is_no_network_that_sees() -> None:
    torch.manual_seed(0)
    stem = VisionConfig(size=32, patch=8, width=32, layers=1, heads=2, stem="conv")
    seen = see(Dino(DinoConfig(backbone=stem)).eval(), IMAGES)
    assert seen.attends and seen.features is None and not seen.cuts
    assert seen.filters.shape[1:] == (3, 3, 3) and seen.positions.shape == (16, 32)


def test_towers_experts_and_single_streams() -> None:
    torch.manual_seed(0)
    text = TextConfig(width=32, layers=1, heads=2)
    towers = see(Clip(ClipConfig(image=VIT_TINY, text=text).resolve(DATA)).eval(), IMAGES)
    assert len(towers.blocks) == VIT_TINY.layers and grid_of(towers.blocks[0].shape[-1]) == (8, 1)
    experts = Vlmo(VlmoConfig.preset("tiny").resolve(DATA)).eval()
    side = experts.config.size
    seen = see(experts, torch.randn(1, 3, side, side))
    assert len(seen.blocks) == experts.config.blocks.layers and seen.positions is None
    assert seen.blocks[-1].shape[-2] == 1  # of the last block the class token alone
    # The top is run twice, the second time with experts that the embedding does not come from.
    assert experts.config.blocks.fusion_layers
    again = see(experts, torch.randn(1, 3, side, side), graph=True)
    torch.autograd.grad(again.encoded.embedding[:, 0].sum(), [again.blocks[-1]])
    one = Vilt(ViltConfig.preset("tiny").resolve(DATA)).eval()
    alone = see(one, torch.randn(1, 3, one.config.size, one.config.size))
    assert not alone.attends and alone.features is None and torch.equal(alone.positions, one.positions)


def test_what_reads_no_pictures_is_refused() -> None:
    config = BertConfig(TextConfig(300, 16, 32, 1, 2, causal=False, pool="class"))
    with pytest.raises(LacksAbility, match="encode_image"):
        see(Bert(config).eval(), IMAGES)
