"""Cross-attention and its Grad-CAM: of known slopes, by layer and head, and against what grounding draws."""

from types import SimpleNamespace

import pytest
import torch
from toy import toy_picture

from multiway.abilities import Encoded
from multiway.config import ConfigError
from multiway.explain.across import cross_attention, look_across, match_cam
from multiway.explain.pairs import CannotShow, Look, Pairs
from multiway.nn.attention import Visibility
from multiway.tasks.heat_maps import heat_maps

PICTURES = [toy_picture("red", "left"), toy_picture("blue", "top", 3)]
TEXTS = ["red on the left", "the top is blue and more"]


class Sloped:
    """Odds are the sum of attention times a slope that is known; attention is any positive numbers."""

    name = "sloped"

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.slopes = [torch.randn(2, 3, 5, 17, generator=draw) for _ in range(2)]
        self.maps = [torch.rand(2, 3, 5, 17, generator=draw) for _ in range(2)]

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", "encode_text", "match_with_maps")

    def encode_image(self, images: torch.Tensor) -> Encoded:
        return Encoded(torch.zeros(2, 0), torch.zeros(2, 17, 4))

    def encode_text(self, ids: torch.Tensor, mask: torch.Tensor) -> Encoded:
        return Encoded(torch.zeros(2, 0), torch.zeros(2, 5, 4))

    def match_with_maps(self, image: Encoded, text: Encoded) -> tuple[torch.Tensor, list[torch.Tensor]]:
        maps = [own + 0 * image.tokens.sum() for own in self.maps]
        return sum((own * slope).sum((1, 2, 3)) for own, slope in zip(maps, self.slopes, strict=True)), maps


@pytest.fixture
def sloped() -> SimpleNamespace:
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    read = SimpleNamespace(ids=torch.zeros(2, 5, dtype=torch.int64), mask=mask)
    processor = SimpleNamespace(tokenizer="any", texts=lambda texts: read, images=lambda some: torch.zeros(2, 3, 4, 4))
    return SimpleNamespace(method=Sloped(), processor=processor, device="cpu")


def test_grad_cam_of_a_known_function(sloped: SimpleNamespace) -> None:
    found = match_cam(Pairs(sloped, PICTURES, TEXTS))
    assert found.layers == (1,)  # of two the second, as grounding has it
    first, last = (
        (own * slope.clamp(min=0)).mean(1)[..., 1:].unflatten(-1, (4, 4))
        for own, slope in zip(sloped.method.maps, sloped.method.slopes, strict=True)
    )
    torch.testing.assert_close(found.heat, torch.stack([last[0].mean(0), last[1, :3].mean(0)]))
    torch.testing.assert_close(found.tokens, (first + last) / 2)  # of words the mean over all layers
    one = match_cam(Pairs(sloped, PICTURES, TEXTS, Look(layers=(0, -1), heads=(2,))))
    parts = [sloped.method.maps[n][:, 2] * sloped.method.slopes[n][:, 2].clamp(min=0) for n in (0, 1)]
    torch.testing.assert_close(one.tokens, ((parts[0] + parts[1]) / 2)[..., 1:].unflatten(-1, (4, 4)))


def test_attention_by_layer_and_head(sloped: SimpleNamespace) -> None:
    found = cross_attention(Pairs(sloped, PICTURES, TEXTS, Look(layers=(0,), heads=(1, 2))))
    assert found.heads.shape == (2, 2, 3, 4, 4)
    own = sloped.method.maps[0][..., 1:].unflatten(-1, (4, 4))
    torch.testing.assert_close(found.tokens, own[:, 1:].mean(1))
    torch.testing.assert_close(found.heads[1, 0], own[1, :, :3].mean(1))
    torch.testing.assert_close(found.heat, found.heads[:, 0, 1:].mean(1))
    # A single layer may look at one patch whatever is asked: unless one is named, all count alike.
    every = cross_attention(Pairs(sloped, PICTURES, TEXTS))
    assert every.layers == (0, 1)
    torch.testing.assert_close(every.heat, every.heads.mean((1, 2)))


def test_words_over_patches_in_a_sequence_that_begins_with_the_picture(models) -> None:
    """BEiT-3's order is patches, then words, and it matches nothing: attention without a score, and no Grad-CAM."""
    pairs = Pairs(models["beit3"], PICTURES, TEXTS)
    method, record = models["beit3"].method, {}
    count, length = pairs.image.tokens.shape[1], pairs.text.tokens.shape[1]
    seen = torch.cat([torch.ones(2, count, dtype=torch.bool), pairs.text.mask], 1)
    tokens = torch.cat([pairs.image.tokens, pairs.text.tokens], 1)
    segments, both = (("vision", count), ("language", length)), (("fusion", count + length),)
    visibility = Visibility.of(seen, count + length, seen.device)
    with torch.no_grad():
        lower = method.blocks(tokens, segments, visibility, stop=2, record=record)
        method.blocks(lower, both, visibility, start=2, record=record)
    found = cross_attention(pairs)
    assert found.score is None and found.layers == (0, 1, 2)
    for layer in range(3):
        over = record[f"blocks.{layer}.attention"][:, :, count:, 1:count]
        expected = torch.stack([own[:, real].mean(1) for own, real in zip(over, pairs.text.mask, strict=True)])
        torch.testing.assert_close(found.heads[:, layer], expected.unflatten(-1, (4, 4)))
    with pytest.raises(CannotShow, match="beit3 has no score of a match"):
        match_cam(pairs)


@pytest.mark.parametrize("name", ["albef", "vilt", "vlmo"])
def test_the_map_is_the_one_that_grounding_draws(models, name: str) -> None:
    model = models[name]
    found = match_cam(Pairs(model, PICTURES, TEXTS)).heat
    image, text = model.encode_image(PICTURES, tokens=True), model.encode_text(TEXTS, tokens=True)
    torch.testing.assert_close(found, heat_maps(model, image, text), atol=1e-7, rtol=1e-4)
    assert found.sum() > 0


@pytest.mark.parametrize("name", ["albef", "vilt", "vlmo"])
def test_a_row_is_the_same_alone_and_padded(models, name: str) -> None:
    for show in (cross_attention, match_cam):
        both, alone = show(Pairs(models[name], PICTURES, TEXTS)), show(Pairs(models[name], PICTURES[:1], TEXTS[:1]))
        torch.testing.assert_close(both.heat[:1], alone.heat, atol=1e-6, rtol=1e-4)
        length = alone.tokens.shape[1]
        torch.testing.assert_close(both.tokens[:1, :length], alone.tokens, atol=1e-6, rtol=1e-4)


def test_attention_over_the_picture_sums_to_at_most_one(models) -> None:
    for name, most in (("albef", 1.0), ("vilt", 1.0), ("vlmo", 1.0), ("beit3", 1.0)):
        sums = cross_attention(Pairs(models[name], PICTURES, TEXTS)).tokens.sum((2, 3))
        assert (sums > 0).all() and (sums <= most + 1e-5).all()


def test_refusals(models) -> None:
    with pytest.raises(CannotShow, match="clip has no attention of words over patches"):
        match_cam(Pairs(models["clip"], PICTURES, TEXTS))
    with pytest.raises(CannotShow, match="no text is given"):
        cross_attention(Pairs(models["albef"], PICTURES))
    with pytest.raises(ConfigError, match="no layer 3; the model has 3"):
        match_cam(Pairs(models["albef"], PICTURES, TEXTS, Look(layers=(3,))))
    with pytest.raises(ConfigError, match="no head 2; each layer has 2"):
        cross_attention(Pairs(models["albef"], PICTURES, TEXTS, Look(heads=(2,))))
    with pytest.raises(ValueError, match="a text for each"):
        Pairs(models["albef"], PICTURES, TEXTS[:1])


def test_only_the_class_token_of_the_last_block_reaches_the_score(models) -> None:
    pairs = Pairs(models["albef"], PICTURES, TEXTS)
    across = look_across(pairs.method, pairs.image, pairs.text)
    first, *_, last = torch.autograd.grad(across.odds.sum(), across.maps)
    assert last[:, :, 1:].abs().max() < 1e-7 and last[:, :, 0].abs().max() > 0
    assert first[:, :, 1:].abs().max() > 0


def test_with_the_head_turned_round_other_patches_speak_for_a_match(models) -> None:
    head = models["albef"].method.match_head
    looks = [match_cam, cross_attention]
    there = [show(Pairs(models["albef"], PICTURES, TEXTS)) for show in looks]
    with torch.no_grad():
        for part in (head.weight, head.bias):
            part.neg_()
    try:
        back = [show(Pairs(models["albef"], PICTURES, TEXTS)) for show in looks]
    finally:
        with torch.no_grad():
            for part in (head.weight, head.bias):
                part.neg_()
    torch.testing.assert_close(back[0].score, -there[0].score, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(back[1].heat, there[1].heat)
    assert not torch.allclose(back[0].tokens, there[0].tokens)
