"""ResNets against `transformers`, against counts derived from the papers, and for what anti-aliasing promises."""

import pytest
import torch
from peer_weights import copy, randomise
from torch import nn
from transformers import ResNetConfig as PeerConfig
from transformers import ResNetModel

from multiway.nn.resnet import (
    BasicBlock,
    Bottleneck,
    GridPool,
    ModifiedResNet,
    ModifiedResNetConfig,
    Projection,
    ResNet,
    ResNetConfig,
)

SMALL = ModifiedResNetConfig(size=64, depths=(1, 1, 1, 1), base=8, heads=4, output=16)


def copy_convolution(convolution: nn.Module, norm: nn.Module, theirs: nn.Module) -> None:
    copy(convolution, theirs.convolution)
    copy(norm, theirs.normalization)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_equals_its_peer(block):
    depths, expansion = (1, 2, 1), 1 if block == "basic" else 4
    hidden = [8 * expansion * 2**stage for stage in range(3)]
    theirs = ResNetModel(PeerConfig(embedding_size=8, hidden_sizes=hidden, depths=list(depths), layer_type=block))
    randomise(theirs)
    ours = ResNet(ResNetConfig(block=block, depths=depths, base=8)).eval()
    copy_convolution(ours.stem[0], ours.stem[1], theirs.embedder.embedder)
    for our_stage, their_stage in zip(ours.stages, theirs.encoder.stages, strict=True):
        for our, their in zip(our_stage, their_stage.layers, strict=True):
            for index, layer in enumerate(their.layer, 1):
                copy_convolution(getattr(our, f"conv{index}"), getattr(our, f"norm{index}"), layer)
            if isinstance(our.shortcut, nn.Sequential):
                copy_convolution(our.shortcut[0], our.shortcut[1], their.shortcut)
            else:
                assert isinstance(their.shortcut, nn.Identity)
    images = torch.randn(2, 3, 64, 48)
    expected = theirs(images)
    scale = expected.last_hidden_state.abs().max()
    assert (ours.features(images) - expected.last_hidden_state).abs().max() < 1e-5 * scale
    assert (ours(images).pooled - expected.pooler_output.flatten(1)).abs().max() < 1e-5 * scale


@pytest.mark.parametrize(
    ("config", "classifier", "published"),
    [
        (ResNetConfig(), 512 * 1000 + 1000, 11_689_512),
        (ResNetConfig("bottleneck", (3, 4, 6, 3)), 2048 * 1000 + 1000, 25_557_032),
    ],
)
def test_parameters_of_published_sizes(config, classifier, published):
    with torch.device("meta"):
        assert sum(p.numel() for p in ResNet(config).parameters()) + classifier == published


def test_parameters_of_clip_rn50_part_by_part():
    def norm(channels):
        return 2 * channels

    stem = 3 * 32 * 9 + norm(32) + 32 * 32 * 9 + norm(32) + 32 * 64 * 9 + norm(64)
    stages, inputs = 0, 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        inside, outside = 64 * 2**stage, 256 * 2**stage
        for block in range(depth):
            stages += inputs * inside + norm(inside)
            stages += inside * inside * 9 + norm(inside)
            stages += inside * outside + norm(outside)
            stages += inputs * outside + norm(outside) if block == 0 else 0
            inputs = outside
    pool = (7 * 7 + 1) * 2048 + 3 * (2048 * 2048 + 2048) + 2048 * 1024 + 1024
    with torch.device("meta"):
        model = ModifiedResNet(ModifiedResNetConfig())
    assert sum(p.numel() for p in model.parameters()) == stem + stages + pool == 38_316_896


def test_shapes_and_widths():
    images = torch.randn(2, 3, 64, 64)
    clip = ModifiedResNet(SMALL)
    tower = clip(images)
    assert tower.pooled.shape == (2, clip.width) == (2, 16)
    assert tower.tokens.shape == (2, 4, clip.token_width) == (2, 4, 256)
    assert clip(torch.randn(2, 3, 96, 64)).tokens.shape == (2, 6, 256)  # positions are interpolated
    cifar = ResNet(ResNetConfig(base=4, stem="cifar"))
    tower = cifar(torch.randn(2, 3, 32, 32))
    assert tower.pooled.shape == (2, cifar.width) == (2, 32)
    assert tower.tokens.shape == (2, 16, 32)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_an_antialiased_stride_skips_no_pixel(block):
    torch.manual_seed(0)

    def reach(antialias):
        """How strongly each of a 2x2 cell's pixels drives the shortcut's output."""
        whole = block(3, 4, stride=2, antialias=antialias).eval()
        shortcut = whole.shortcut
        pixels = torch.randn(1, 3, 8, 8, requires_grad=True)
        assert whole(pixels).shape == (1, 4 * block.expansion, 4, 4)
        shortcut(pixels).sum().backward()
        return pixels.grad[0].abs().sum(0).view(4, 2, 4, 2).sum((0, 2))

    assert reach(False).count_nonzero() == 1
    smooth = reach(True)
    torch.testing.assert_close(smooth, smooth[:1, :1].expand(2, 2))


def test_antialiased_convolutions_have_no_stride_but_the_stem():
    model = ModifiedResNet(SMALL)
    strided = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d) and part.stride != (1, 1)]
    assert strided == ["stem.0"]


def test_grid_pool_equals_torch_multi_head_attention():
    torch.manual_seed(0)
    pool = GridPool((2, 3), 16, heads=4, output=8)
    features = torch.randn(2, 16, 2, 3)
    places = features.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([places.mean(0, keepdim=True) + pool.mean_position, places + pool.positions[:, None]])
    attention = pool.attention
    expected, _ = nn.functional.multi_head_attention_forward(
        tokens[:1],
        tokens,
        tokens,
        16,
        4,
        torch.cat([attention.query.weight, attention.key_value.weight]),
        torch.cat([attention.query.bias, attention.key_value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=attention.out.weight,
        out_proj_bias=attention.out.bias,
    )
    torch.testing.assert_close(pool(features), expected[0], atol=1e-5, rtol=1e-5)


def test_a_block_starts_as_its_shortcut():
    model = ResNet(ResNetConfig(base=4)).eval()
    block = model.stages[0][1]
    x = torch.rand(1, 4, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="size 100 is no multiple of 32"):
        ModifiedResNet(ModifiedResNetConfig(size=100))


@pytest.mark.parametrize("channels", [5, 15, 16, 24])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_strided_projection_is_a_strided_convolution(stride: int, channels: int) -> None:
    ours, plain = Projection(channels, 24, stride), nn.Conv2d(channels, 24, 1, stride, bias=False)
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(2, channels, 13, 10, requires_grad=True)
    torch.testing.assert_close(ours(images), plain(images))
    weights = torch.randn_like(plain(images))
    found = torch.autograd.grad((ours(images) * weights).sum(), [images, ours.weight])
    expected = torch.autograd.grad((plain(images) * weights).sum(), [images, plain.weight])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("base", "side"), [(4, 64), (14, 96), (15, 128), (16, 128)])
@pytest.mark.parametrize("bf16", [False, True])
def test_few_channels_of_larger_pictures_do_not_end_the_process(base: int, side: int, bf16: bool) -> None:
    network = ResNet(ResNetConfig(depths=(1, 1), base=base, stem="cifar")).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        pooled = network(torch.randn(2, 3, side, side)).pooled
    pooled.float().sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in network.parameters())
