"""Maps of a picture's own encoder: sums, layers and heads, joint rollout, and the similarity's Grad-CAM row by row."""

import pytest
import torch
from toy import toy_picture

from multiway.config import ConfigError
from multiway.explain.alone import own_attention, own_rollout, similarity_cam
from multiway.explain.attention import over_patches
from multiway.explain.pairs import CannotShow, Look, Pairs
from multiway.explain.rollout import rollout
from multiway.explain.seen import see, see_joint

PICTURES = [toy_picture("red", "left"), toy_picture("blue", "top", 3)]
TEXTS = ["red on the left", "the top is blue and more"]


def test_attention_by_layer_and_head(models) -> None:
    pairs = Pairs(models["clip"], PICTURES, look=Look(layers=(0, -1), heads=(1,)))
    found, seen = own_attention(pairs), see(models["clip"].method, pairs.images)
    assert found.layers == (0, 1) and found.heads.shape == (2, 2, 2, 4, 4) and found.tokens is None
    both = [over_patches(block)[:, 1] for block in seen.blocks]
    torch.testing.assert_close(found.heat, (both[0] + both[1]) / 2)
    last = own_attention(Pairs(models["clip"], PICTURES))
    torch.testing.assert_close(last.heat, found.heads[:, 1].mean(1))
    assert (last.heat.sum((1, 2)) <= 1 + 1e-5).all()


def test_rollout_of_a_picture_and_of_chosen_heads(models) -> None:
    pairs = Pairs(models["albef"], PICTURES, TEXTS, Look(heads=(1,)))
    seen = see(models["albef"].method, pairs.images)
    expected = over_patches(rollout([block[:, 1:2] for block in seen.blocks]))
    torch.testing.assert_close(own_rollout(pairs).heat, expected)


@pytest.mark.parametrize("name", ["vilt", "vlmo", "beit3"])
def test_attention_of_words_and_patches_over_one_another(models, name: str) -> None:
    pairs = Pairs(models[name], PICTURES, TEXTS)
    joint = see_joint(pairs.method, pairs.image, pairs.text)
    assert joint is not None and len(joint.blocks) == 3
    with torch.no_grad():
        said = pairs.method.fuse(pairs.image, pairs.text, tokens=True).tokens
    torch.testing.assert_close(joint.tokens[:, : joint.words], said, atol=1e-4, rtol=1e-4)
    # Nobody looks at padding: the second text is the longer one.
    assert all((block[0, :, :, : joint.words][..., ~pairs.text.mask[0]] < 1e-6).all() for block in joint.blocks)
    for block in joint.blocks:
        torch.testing.assert_close(block.sum(-1), torch.ones(block.shape[:-1]))
    found = own_rollout(pairs)
    whole = rollout(joint.blocks)
    patches = whole[:, : joint.words, joint.words + 1 :].unflatten(-1, (4, 4))
    torch.testing.assert_close(found.tokens, patches)
    # Of a model that matches the class token's, which the match is read from; else the mean over the words.
    mean = torch.stack([own[real].mean(0) for own, real in zip(patches, pairs.words, strict=True)])
    torch.testing.assert_close(found.heat, mean if name == "beit3" else patches[:, 0])
    # A word is followed to other patches in another picture.
    other = own_rollout(Pairs(models[name], PICTURES[::-1], TEXTS))
    assert not torch.allclose(found.heat, other.heat)


def test_without_a_text_or_one_sequence_the_picture_is_rolled_out_alone(models) -> None:
    alone = own_rollout(Pairs(models["vlmo"], PICTURES))
    assert alone.tokens is None and alone.heat.shape == (2, 4, 4)
    with pytest.raises(CannotShow, match="no transformer reads it by itself"):
        own_rollout(Pairs(models["vilt"], PICTURES))
    assert (
        see_joint(
            models["albef"].method, *(getattr(Pairs(models["albef"], PICTURES, TEXTS), n) for n in ("image", "text"))
        )
        is None
    )


@pytest.mark.parametrize("name", ["clip", "filip", "albef"])
def test_each_picture_is_compared_with_its_own_text(models, name: str) -> None:
    both = similarity_cam(Pairs(models[name], PICTURES, TEXTS))
    for row in range(2):
        alone = similarity_cam(Pairs(models[name], PICTURES[row : row + 1], TEXTS[row : row + 1]))
        torch.testing.assert_close(both.heat[row], alone.heat[0], atol=1e-6, rtol=1e-4)
    model = models[name]
    image, text = model.encode_image(PICTURES, tokens=True), model.encode_text(TEXTS, tokens=True)
    torch.testing.assert_close(both.score, model.compare(image, text).diagonal(), atol=1e-5, rtol=1e-4)
    first = similarity_cam(Pairs(model, PICTURES, TEXTS, Look(layers=(0,))))
    assert (first.heat >= 0).all() and not torch.allclose(first.heat, both.heat)
    with pytest.raises(ConfigError, match="no layer 2"):
        similarity_cam(Pairs(model, PICTURES, TEXTS, Look(layers=(2,))))


def test_refusals(models) -> None:
    with pytest.raises(CannotShow, match="vilt compares no pictures with texts"):
        similarity_cam(Pairs(models["vilt"], PICTURES, TEXTS))
    with pytest.raises(CannotShow, match="no transformer reads it by itself"):
        own_attention(Pairs(models["vilt"], PICTURES, TEXTS))
    with pytest.raises(CannotShow, match="no text is given"):
        similarity_cam(Pairs(models["clip"], PICTURES))
