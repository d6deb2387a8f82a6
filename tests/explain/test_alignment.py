"""Transport and token matches: against the loss and the method themselves, and why a sum over words would say nothing."""

import pytest
import torch
from toy import toy_picture

from multiway.explain.alignment import token_matches, word_patch_transport
from multiway.explain.pairs import CannotShow, Pairs
from multiway.losses.wpa import inner_words, transport_distance

PICTURES = [toy_picture("red", "left"), toy_picture("blue", "top", 3)]
TEXTS = ["red on the left", "the top is blue and more"]


def test_the_distance_is_the_one_that_vilt_learns_by(models) -> None:
    model = models["vilt"]
    found = word_patch_transport(Pairs(model, PICTURES, TEXTS))
    tokens = model.processor.texts(TEXTS)
    with torch.no_grad():
        method = model.method
        image = method.encode_image(model.processor.images(PICTURES))
        text = method.encode_text(tokens.ids, tokens.mask)
        fused = method._fuse(text.tokens, tokens.mask, image.tokens)
        length = tokens.mask.shape[1]
        words, patches = fused[:, :length], fused[:, length + 1 :]
        every = torch.ones(patches.shape[:2], dtype=torch.bool)
        expected = transport_distance(words, patches, inner_words(tokens.mask), every)
    torch.testing.assert_close(found.score, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["vilt", "filip"])
def test_a_words_mass_is_one_and_a_patchs_share_is_even(models, name: str) -> None:
    pairs = Pairs(models[name], PICTURES, TEXTS)
    found = word_patch_transport(pairs)
    mass = found.tokens.sum((2, 3))
    torch.testing.assert_close(mass[pairs.words], torch.ones(int(pairs.words.sum())), atol=0.05, rtol=0.05)
    assert (mass[~pairs.words] == 0).all()
    # Summed over words every patch has the same: this is why the whole text's map is another.
    count = pairs.words.sum(1)[:, None, None]
    torch.testing.assert_close(found.tokens.sum(1) / count, torch.full((2, 4, 4), 1 / 16), atol=1e-4, rtol=1e-4)
    assert found.heat.std() > 1e-4
    # Mean of 1 - cost over patches is 1 - distance.
    torch.testing.assert_close(found.heat.mean((1, 2)), 1 - found.score, atol=1e-3, rtol=1e-3)


def test_filips_matches_are_what_its_similarity_is_made_of(models) -> None:
    model = models["filip"]
    found = token_matches(Pairs(model, PICTURES, TEXTS))
    image, text = model.encode_image(PICTURES, tokens=True), model.encode_text(TEXTS, tokens=True)
    torch.testing.assert_close(found.score, model.compare(image, text, "text").diagonal(), atol=1e-5, rtol=1e-4)
    # Mean over real tokens of the best patch, or of the class token where that is better.
    products = torch.einsum("blw,bnw->bln", text.tokens, image.tokens)
    torch.testing.assert_close(found.tokens.flatten(2), products[..., 1:], atol=1e-5, rtol=1e-4)
    best = torch.maximum(found.tokens.flatten(2).amax(2), products[..., 0])
    mean = torch.stack([own[real].mean() for own, real in zip(best, text.mask, strict=True)])
    torch.testing.assert_close(mean, found.score, atol=1e-5, rtol=1e-4)


def test_the_whole_text_is_the_mean_over_its_words(models) -> None:
    pairs = Pairs(models["filip"], PICTURES, TEXTS)
    found = token_matches(pairs)
    for row in range(2):
        torch.testing.assert_close(found.heat[row], found.tokens[row][pairs.words[row]].mean(0))


def test_refusals(models) -> None:
    for name in ("clip", "albef"):
        with pytest.raises(CannotShow, match="never has words and patches in one space"):
            word_patch_transport(Pairs(models[name], PICTURES, TEXTS))
        with pytest.raises(CannotShow, match="as FILIP does"):
            token_matches(Pairs(models[name], PICTURES, TEXTS))
    with pytest.raises(CannotShow, match="as FILIP does"):
        token_matches(Pairs(models["vilt"], PICTURES, TEXTS))
