"""What speaks for a text or a class: signs, closed forms, and who is left out."""

import torch
import torch.nn.functional as F
from torch import nn

from multiway.abilities import Encoded
from multiway.explain.evidence import class_evidence, text_evidence
from multiway.nn.resnet import ResNet, ResNetConfig
from multiway.nn.vit import VisionConfig, VisionTransformer

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Toy(nn.Module):
    """Any tower, compared with texts by dot products, and a linear classifier."""

    def __init__(self, tower: nn.Module, able: tuple[str, ...]) -> None:
        super().__init__()
        self.tower, self.head, self.able = tower, nn.Linear(tower.width, 3), able

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", *self.able)

    def encode_image(self, images: torch.Tensor) -> Encoded:
        pooled, tokens = self.tower(images)
        return Encoded(pooled, tokens)

    def classify(self, image: Encoded) -> torch.Tensor:
        return self.head(image.embedding)


def residual(*able: str) -> Toy:
    torch.manual_seed(0)
    return Toy(ResNet(ResNetConfig(depths=(1, 1), base=4, stem="cifar")), able).eval()


def transformer(*able: str) -> Toy:
    torch.manual_seed(0)
    tower = VisionTransformer(VisionConfig(size=16, patch=4, width=16, layers=2, heads=2))
    with torch.no_grad():
        for part in tower.parameters():
            part.add_(0.3 * torch.randn_like(part))
    return Toy(tower, able).eval()


def test_a_residual_network_by_the_closed_form() -> None:
    method = residual("compare")
    text = Encoded(F.normalize(torch.randn(1, method.tower.width), dim=1))
    maps, scores = text_evidence(method, IMAGES, text)
    with torch.no_grad():
        features = method.tower.features(IMAGES)
        torch.testing.assert_close(scores, features.mean((2, 3)) @ text.embedding[0])
        places = features.shape[2] * features.shape[3]
        torch.testing.assert_close(maps, (text.embedding[0][:, None, None] * features).sum(1).clamp(min=0) / places)


def test_a_transformer_by_finite_differences_of_its_attention() -> None:
    """The gradient by one entry of the last block's class row, found by changing it."""
    method = transformer("compare")
    text = Encoded(F.normalize(torch.randn(1, 16), dim=1))
    maps, _ = text_evidence(method, IMAGES[:1], text)
    block = method.tower.transformer.blocks[-1]
    record: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        method.tower(IMAGES[:1], record=record)
        weights, before = record["blocks.1.attention"][0, :, 0], record["blocks.0"]
        normed = block.attention_norm(before)
        value = block.attention.qkv(normed)[0, :, 32:].unflatten(-1, (2, 8)).transpose(0, 1)

        def score(weights: torch.Tensor) -> float:
            mixed = torch.einsum("hn,hnd->hd", weights.double(), value.double()).flatten().float()
            token = before[0, 0] + block.attention.out(mixed)
            token = token + block.mlp(block.mlp_norm(token))
            return float(method.tower.transformer.norm(token) @ text.embedding[0])

        expected = torch.zeros(2, 17)
        for head in range(2):
            for token in range(17):
                step = torch.zeros(2, 17)
                step[head, token] = 1e-2
                slope = (score(weights + step) - score(weights - step)) / 2e-2
                expected[head, token] = weights[head, token] * max(0.0, slope)
    torch.testing.assert_close(maps[0], expected.mean(0)[1:].view(4, 4), atol=1e-5, rtol=1e-2)


def test_the_opposite_text_has_the_other_evidence() -> None:
    for method in (residual("compare"), transformer("compare")):
        text = F.normalize(torch.randn(1, method.tower.width), dim=1)
        maps, scores = text_evidence(method, IMAGES, Encoded(text))
        other, minus = text_evidence(method, IMAGES, Encoded(-text))
        torch.testing.assert_close(minus, -scores)
        assert maps.sum() > 0 and not torch.allclose(maps, other)
    # Heads may disagree in a transformer; in a linear score no place speaks for both.
    net = residual("compare")
    one, two = (text_evidence(net, IMAGES, Encoded(sign * torch.ones(1, net.tower.width)))[0] for sign in (1, -1))
    assert not ((one > 0) & (two > 0)).any()


def test_the_class_that_is_given() -> None:
    method = residual("classify")
    maps, numbers, shares = class_evidence(method, IMAGES)
    with torch.no_grad():
        logits = method.classify(method.encode_image(IMAGES))
        features = method.tower.features(IMAGES)
    assert torch.equal(numbers, logits.argmax(1))
    torch.testing.assert_close(shares, logits.softmax(1).amax(1))
    weights = method.head.weight[numbers].detach()
    places = features.shape[2] * features.shape[3]
    torch.testing.assert_close(maps, torch.einsum("bc,bcij->bij", weights, features).clamp(min=0) / places)


def test_who_has_nothing_to_show() -> None:
    assert text_evidence(residual(), IMAGES, Encoded(torch.ones(1, 8))) is None
    assert class_evidence(residual(), IMAGES) is None

    class Blind(Toy):
        def encode_image(self, images: torch.Tensor) -> Encoded:
            super().encode_image(images)
            return Encoded(images.mean((2, 3)) @ torch.ones(3, self.tower.width))

    blind = Blind(residual().tower, ("compare",)).eval()
    assert text_evidence(blind, IMAGES, Encoded(torch.ones(1, blind.tower.width))) is None
